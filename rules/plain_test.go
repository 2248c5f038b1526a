package rules

import (
	"io/fs"
	"strings"
	"testing"
)

// sameNode compares two trees, but for the files that they point to.
func sameNode(t *testing.T, a, b *node) bool {
	t.Helper()
	if a.line != b.line || a.col != b.col || a.kind != b.kind || a.text != b.text || a.block != b.block ||
		len(a.keys) != len(b.keys) || len(a.items) != len(b.items) {
		short := func(n *node) node { c := *n; c.file, c.keys, c.items = nil, nil, nil; return c }
		t.Errorf("%s: plain %+v, with %d items; in full %+v, with %d items", a.file.name, short(a), len(a.items), short(b), len(b.items))
		return false
	}
	for i := range a.keys {
		if !sameNode(t, a.keys[i], b.keys[i]) {
			return false
		}
	}
	for i := range a.items {
		if !sameNode(t, a.items[i], b.items[i]) {
			return false
		}
	}
	return true
}

// The catalogue is in the plain style, and read as the full parser reads it.
func TestPlain(t *testing.T) {
	files, err := fs.Glob(embedded, "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		data, err := embedded.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		full, err := parseYAML(name, data)
		if err != nil {
			t.Fatal(err)
		}
		plain, ok := readPlain(&source{name: name, lines: strings.Split(string(data), "\n")})
		if !ok {
			t.Errorf("%s is not in the plain style of plain.go: it is read in 20 ms instead of 0.2", name)
			continue
		}
		sameNode(t, plain, full)
	}
}

func TestCollapse(t *testing.T) {
	for _, s := range []string{"", " ", "a", "a b", "a  b", " a", "a ", "\ta", "a\nb", " a b ", "a\u00a0b", "a\u2003 b", "가 나\n",
		"  a", "a \n b", "a\n  b", "a\v\fb ", "\u0085a\u1680b\u2028\u3000", "\u3000\u3000", "ㄱ\u3131 \ua000", "\xc2", "\xe3\x80 \xff", "a\x00\x1fb"} {
		if got, want := collapse(s), strings.Join(strings.Fields(s), " "); got != want {
			t.Errorf("%q becomes %q, not %q", s, got, want)
		}
	}
}
