// Fills in what Go's own text/template makes of the examples in language.json: go run language.go language.json
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type file struct {
	Data     any        `json:"data"`
	Examples []*example `json:"examples"`
}

type example struct {
	Template string `json:"template"`
	Output   string `json:"output,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (e *example) run(data any) {
	functions := template.FuncMap{"json": func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	}}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(e.Template)
	var out bytes.Buffer
	if err == nil {
		err = parsed.Execute(&out, data)
	}
	e.Output, e.Error = "", ""
	if err != nil {
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
	for _, e := range f.Examples {
		e.run(f.Data)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	check(encoder.Encode(f))
	check(os.WriteFile(os.Args[1], out.Bytes(), 0o644))
}
