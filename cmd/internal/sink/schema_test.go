package sink

import (
	"bytes"
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"jindan/analyze"
	"jindan/capture"
)

// comments are the doc comments of types and of struct fields, by "package.Type" and "package.Type.Field".
func comments(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources in %s: %v", dir, err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			text := func(groups ...*ast.CommentGroup) string {
				for _, g := range groups {
					if s := strings.TrimSpace(g.Text()); s != "" {
						paragraph, _, _ := strings.Cut(s, "\n\n")
						return strings.Join(strings.Fields(paragraph), " ")
					}
				}
				return ""
			}
			ast.Inspect(f, func(n ast.Node) bool {
				d, ok := n.(*ast.GenDecl)
				if !ok {
					return true
				}
				for _, s := range d.Specs {
					spec, ok := s.(*ast.TypeSpec)
					if !ok {
						continue
					}
					path := f.Name.Name + "." + spec.Name.Name
					found[path] = text(spec.Doc, d.Doc)
					if st, ok := spec.Type.(*ast.StructType); ok {
						for _, field := range st.Fields.List {
							for _, id := range field.Names {
								found[path+"."+id.Name] = text(field.Doc, field.Comment)
							}
						}
					}
				}
				return false
			})
		}
	}
	return found
}

// words are the values of the types and fields that take few, in the order of the constants.
var words = map[string][]any{
	"analyze.State":             {analyze.Open, analyze.Update, analyze.Resolved},
	"analyze.Ended":             {analyze.EndedWell, analyze.EndedUnasked},
	"analyze.Role":              {analyze.Root, analyze.Consequence, analyze.Independent, analyze.Pending},
	"analyze.Verdict":           {analyze.Confirmed, analyze.IsConsequence, analyze.Suspected, analyze.RuledOut, analyze.NotAssessable},
	"analyze.Finding.Severity":  {"info", "warn", "error"},
	"analyze.Incident.Severity": {"info", "warn", "error"},
	"analyze.Finding.Schema":    {analyze.FindingSchema},
	"analyze.Diagnosis.Schema":  {analyze.DiagnosisSchema},
	"analyze.Confidence.Level":  {"high", "medium", "low"},
	"analyze.Subject.Direction": {"inbound", "outbound"},
	"analyze.Subject.Kind":      {analyze.SubjectCapture, analyze.SubjectPath, analyze.SubjectService, analyze.SubjectUpstream, analyze.SubjectResolver, analyze.SubjectSource, analyze.SubjectHost, analyze.SubjectSegment},
	"sink.notice.Severity":      {"info", "warn", "error"},
	"analyze.Coverage.LocalBy":  {analyze.LocalByOption, analyze.LocalByPoints, analyze.LocalByHost, analyze.LocalByDirection, analyze.LocalByLink, analyze.LocalByCommon, analyze.LocalNone},
}

// generator makes a schema of a Go type as encoding/json writes it.
type generator struct {
	doc  map[string]string
	defs map[string]any
}

func (g *generator) of(typ reflect.Type) map[string]any {
	name := typ.String()
	switch {
	case typ == reflect.TypeFor[capture.Instant]():
		return map[string]any{"type": "string", "format": "date-time"} // RFC 3339, UTC, nanoseconds
	case words[name] != nil:
		return map[string]any{"type": "string", "enum": words[name]}
	case typ.Implements(reflect.TypeFor[json.Marshaler]()), typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		panic(name + " writes itself: say here how")
	}
	switch typ.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint16:
		return map[string]any{"type": "integer", "minimum": 0, "maximum": 1<<16 - 1}
	case reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Pointer:
		return g.of(typ.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.of(typ.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.of(typ.Elem())}
	case reflect.Interface: // features: what a rule measures
		return map[string]any{"type": "object"}
	case reflect.Struct:
		if g.defs[name] == nil {
			g.defs[name] = true // a type may hold itself
			g.defs[name] = g.object(typ)
		}
		return map[string]any{"$ref": "#/$defs/" + typ.Name()}
	}
	panic("no schema for " + name)
}

func (g *generator) object(typ reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	g.fields(typ, properties, &required)
	return map[string]any{"type": "object", "description": g.doc[typ.String()], "properties": properties, "required": required}
}

func (g *generator) fields(typ reflect.Type, properties map[string]any, required *[]string) {
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		path := typ.String() + "." + f.Name
		switch {
		case !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous:
			g.fields(f.Type, properties, required)
			continue
		case name == "-":
			continue
		case name == "":
			panic(path + " has no JSON name")
		}
		p := g.of(f.Type)
		if w := words[path]; w != nil {
			p["enum"] = w
		}
		if d := g.doc[path]; d != "" {
			p["description"] = d
		}
		properties[name] = p
		if options != "omitempty" {
			*required = append(*required, name)
		}
	}
}

// schema is a whole document.
func (g *generator) schema(k Kind, typ reflect.Type) []byte {
	g.defs = map[string]any{}
	top := g.object(typ)
	defs := map[string]any{}
	for name, d := range g.defs {
		_, short, _ := strings.Cut(name, ".")
		defs[short] = d
	}
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = "urn:jindan:" + string(k) + ":v1"
	top["title"] = "jindan." + string(k) + "/v1"
	top["$defs"] = defs
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(top); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestSchemas: the published schemas are those of the structs, and valid ones.
func TestSchemas(t *testing.T) {
	g := &generator{doc: comments(t, ".", "../../../analyze")}
	types := map[Kind]reflect.Type{KindFinding: reflect.TypeFor[finding](), KindDiagnosis: reflect.TypeFor[analyze.Diagnosis](),
		KindHeartbeat: reflect.TypeFor[heartbeat](), KindNotice: reflect.TypeFor[notice]()}
	for _, k := range Kinds {
		want := g.schema(k, types[k])
		if *update {
			if err := os.WriteFile("schema/"+string(k)+".v1.json", want, 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := Schema(k)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("schema/%s.v1.json is not that of the structs; go test ./cmd/internal/sink -run TestSchemas -update writes it", k)
		}
		compile(t, k) // against the meta-schema
	}
}

// compile reads the published schema of a kind. Objects take only what it names: a
// reader may meet more in a later version, but these tests may not.
func compile(t testing.TB, k Kind) *jsonschema.Schema {
	t.Helper()
	b, err := Schema(k)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	closed(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("record.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("record.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(doc any) {
	m, ok := doc.(map[string]any)
	if !ok {
		return
	}
	if m["type"] == "object" && m["required"] != nil {
		m["additionalProperties"] = false
	}
	for _, v := range m {
		closed(v)
	}
}

// validate holds a record against the schema of its kind.
func validate(t testing.TB, s *jsonschema.Schema, record []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(record))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, record)
	}
}
