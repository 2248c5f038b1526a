package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// within fails the test if f takes longer than d.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s: not done after %v", what, d)
	}
}

// TestEndlessFiles: a rule file that never ends, or never begins, is a mistake like others.
func TestEndlessFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a FIFO":       func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"/dev/zero":    func(p string) error { return os.Symlink("/dev/zero", p) },
		"a terminal":   func(p string) error { return os.Symlink("/dev/tty", p) },
		"a huge file":  func(p string) error { return os.WriteFile(p, make([]byte, 64<<20), 0o600) },
		"a proc file":  func(p string) error { return os.Symlink("/proc/self/maps", p) },
		"a dead link":  func(p string) error { return os.Symlink("/nowhere", p) },
		"a FIFO's end": func(p string) error { return os.Symlink("/proc/self/fd/0", p) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, "surge.yaml")); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, name, func() {
			if _, err := loadSmall(map[string]string{}, Override{Name: dir, FS: os.DirFS(dir)}); err == nil {
				t.Errorf("%s: no error", name)
			}
		})
	}
	dir := t.TempDir()
	for i := range maxFiles + 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("r%d.yaml", i)), []byte("id: x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := loadSmall(map[string]string{}, Override{Name: dir, FS: os.DirFS(dir)}); err == nil || !strings.Contains(err.Error(), "at most 1000") {
		t.Errorf("a thousand files and one: %v", err)
	}
}

// TestYAMLBombs: no file within the bounds takes long, whatever is in it.
func TestYAMLBombs(t *testing.T) {
	var deep, keys strings.Builder
	for i := range 350 {
		fmt.Fprintf(&deep, "%sa:\n", strings.Repeat(" ", i))
	}
	for i := 0; keys.Len() < maxFile-20; i++ {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	for name, s := range map[string]string{
		"nested blocks": deep.String(), "keys": keys.String(), "one key": strings.Repeat("a: 1\n", 12_000),
		"brackets": strings.Repeat(strings.Repeat("[", 1900)+"\n", 2), "braces": strings.Repeat(strings.Repeat("{a: ", 450)+"\n", 8),
		"dashes": strings.Repeat(strings.Repeat("- ", 990)+"\n", 32), "a list": "a:\n" + strings.Repeat("- 1\n", 15_000),
		"a flow":   "a: [" + strings.Repeat(strings.Repeat("1,", 900)+"\n", 30) + "1]",
		"anchors":  "a: &a [1]\n" + strings.Repeat("b: [*a, *a, *a]\n", 2000),
		"comments": strings.Repeat("#\n", 32_000), "quotes": strings.Repeat("\"\\x\n", 16_000), "tags": strings.Repeat("!!a ", 490),
	} {
		within(t, 10*time.Second, name, func() { _, _ = parseYAML(name, []byte(s)) })
	}
}
