"""`tokenizer.ggml.pre`: the rules that cut text into pretokens, by the names that GGUF files use."""

#: rules (as csrc/text/pretoken.c names them) -> the names of tokenizers that follow them
_MERGED = {
    "gpt-2": (
        "default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat",
        "a.x-4.0", "mellum", "modern-bert", "roberta-bpe", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es",
        "jina-v2-de", "jina-v2-code",
    ),
    "smollm": (
        "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2",
    ),
    "falcon": ("falcon",),
    "llama-bpe": ("dbrx", "smaug-bpe", "chatglm-bpe"),
    "qwen2": (
        "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2",
        "bailingmoe", "bailingmoe2", "llada-moe",
    ),
    "qwen35": ("qwen35",),
    "seed-coder": ("seed-coder",),
    "laguna": ("laguna",),
    "gpt-4o": ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
    "kimi-k2": ("kimi-k2",),
    "tiny-aya": ("tiny_aya", "cohere2moe"),
    "deepseek-llm": ("deepseek-llm",),
    "deepseek-coder": ("deepseek-coder",),
    "deepseek-v3": ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
    "bloom": ("bloom", "poro-chat", "gpt3-finnish"),
    "viking": ("viking",),
}  # fmt: skip
#: the same for tokenizers in which a pretoken that is a piece as a whole is not merged
_WHOLE = {
    "llama-bpe": (
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        "glm4", "glm5",
    ),
    "gpt-4o": ("granite-embed-multi-97m",),
    "minicpm5": ("minicpm5",),
    "tekken": ("tekken",),
    "youtu": ("youtu",),
}  # fmt: skip

#: `tokenizer.ggml.pre` -> the rules; whether whole pretokens skip the merges
PRETOKENIZERS = {
    name: (rules, whole)
    for table, whole in ((_MERGED, False), (_WHOLE, True))
    for rules, names in table.items()
    for name in names
}

#: tokenizers that put BOS before a text where the file does not say
BOS_BY_DEFAULT = frozenset((*_WHOLE["llama-bpe"], *_WHOLE["tekken"])) - {"glm4", "glm5"}
