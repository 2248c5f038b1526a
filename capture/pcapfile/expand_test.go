package pcapfile

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	t.Chdir(t.TempDir())
	pcap, _ := sample("pcap")
	pcapng, _ := sample("pcapng")
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("d/b.pcap", pcap)
	write("d/a.log", pcapng) // the content counts
	write("d/sub/c.pcap.gz", gzipped(t, pcap))
	write("d/sub/d.bin", zstandard(t, pcapng))
	write("d/sub/notes.txt", []byte("not a capture"))
	write("d/sub/notes.gz", gzipped(t, []byte("neither is this")))
	write("d/sub/empty.pcap", nil)
	write("d/sub/short.pcap", []byte{0xd4})
	write("z.txt", []byte("named, so taken"))
	write("none/x.txt", []byte("text"))
	links := runtime.GOOS != "windows"
	if links {
		for from, to := range map[string]string{"d/zz.pcap": "b.pcap", "d/dangling": "nowhere", "loop": "loop", "d/up": ".."} {
			if err := os.Symlink(to, from); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := filepath.FromSlash
	all := []string{p("d/a.log"), p("d/b.pcap"), p("d/sub/c.pcap.gz"), p("d/sub/d.bin")}
	for _, tt := range []struct {
		args, want []string
		err        string
	}{
		{nil, nil, ""},
		{[]string{"d"}, all, ""},
		{[]string{"d/sub", "d", "./d", "d/b.pcap"}, all, ""},
		{[]string{"z.txt", "-", "d/b.pcap", "./z.txt", "-"}, []string{"-", p("d/b.pcap"), "z.txt"}, ""},
		{[]string{"none"}, nil, "none: there is no capture in this directory (jindan reads"},
		{[]string{"missing", "z.txt", "none"}, []string{"z.txt"}, "missing"},
	} {
		for range 2 {
			got, err := Expand(tt.args)
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %q, %v", tt.args, got, err)
			}
			slices.Reverse(tt.args)
		}
	}
	if links {
		if got, err := Expand([]string{"d/zz.pcap", "d/b.pcap"}); err != nil || !slices.Equal(got, []string{p("d/b.pcap")}) {
			t.Errorf("link: %q, %v", got, err)
		}
	}
	if got, err := Expand([]string{"-"}); err != nil || !slices.Equal(got, []string{"-"}) {
		t.Errorf("%q, %v", got, err)
	}
}
