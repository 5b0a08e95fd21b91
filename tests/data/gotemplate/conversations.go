// Fills in what Ollama's own template package makes of the examples in conversations.json. In a checkout of Ollama
// (v0.33.0): go run conversations.go conversations.json
package main

import (
	"bytes"
	"encoding/json"
	"os"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/template"
	"github.com/ollama/ollama/thinking"
)

type file struct {
	Tools         json.RawMessage            `json:"tools"`
	Conversations map[string]json.RawMessage `json:"conversations"`
	Templates     []*source                  `json:"templates"`
}

type source struct {
	Template  string     `json:"template"`
	Variables []string   `json:"variables"`
	Tags      [2]string  `json:"tags"`
	Examples  []*example `json:"examples"`
}

type example struct {
	Conversation string          `json:"conversation,omitempty"`
	Prompt       string          `json:"prompt,omitempty"`
	Suffix       string          `json:"suffix,omitempty"`
	Think        json.RawMessage `json:"think,omitempty"`
	Output       string          `json:"output,omitempty"`
	Error        string          `json:"error,omitempty"`
}

func (e *example) run(f *file, parsed *template.Template) {
	values := template.Values{Prompt: e.Prompt, Suffix: e.Suffix}
	if e.Conversation != "" {
		check(json.Unmarshal(f.Conversations[e.Conversation], &values.Messages))
	}
	check(json.Unmarshal(f.Tools, &values.Tools))
	if e.Think != nil {
		var think api.ThinkValue
		check(json.Unmarshal(e.Think, &think))
		values.Think, values.ThinkLevel, values.IsThinkSet = think.Bool(), think.String(), true
	}
	e.Output, e.Error = "", ""
	var out bytes.Buffer
	if err := parsed.Execute(&out, values); err != nil {
		e.Error = err.Error()
	} else {
		e.Output = out.String()
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	var f file
	check(json.Unmarshal(text, &f))
	for _, s := range f.Templates {
		parsed, err := template.Parse(s.Template)
		check(err)
		s.Variables, err = parsed.Vars()
		check(err)
		s.Tags[0], s.Tags[1] = thinking.InferTags(parsed.Template)
		for _, e := range s.Examples {
			e.run(&f, parsed)
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	check(encoder.Encode(f))
	check(os.WriteFile(os.Args[1], out.Bytes(), 0o644))
}
