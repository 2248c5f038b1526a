package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A real terminal: the screens change by their keys, the language too, and the terminal is as it was before after "q" and after
// SIGTERM.
func TestTopInTerminal(t *testing.T) {
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		t.Skip("needs tmux")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "jindan")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	capture, err := filepath.Abs("../../fixtures/gpki-2023-11-17/packets.pcap.zst")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "tmux")
	run := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), tmux, append([]string{"-f", "/dev/null", "-u", "-S", socket}, args...)...)
		c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	see := func(what string) {
		t.Helper()
		screen := ""
		for range 150 {
			if screen = run("capture-pane", "-p", "-t", "x"); strings.Contains(screen, what) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("%q does not come:\n%s", what, screen)
	}
	run("new-session", "-d", "-s", "x", "-x", "80", "-y", "24", "env", "PS1=ready$ ", "sh")
	defer run("kill-server")
	start := func() {
		run("send-keys", "-t", "x", "clear; echo before; "+program+" --lang en top --replay "+capture+" --speed 20", "Enter")
		see("CAUSE  Size-dependent packet loss")
	}
	start()
	for _, k := range [][2]string{{"2", "[2 listeners]"}, {"3", "10.77.3.2 > 10.77.2.2"}, {"4", "unansw."}, {"5", "[5 steps]"}, {"1", "[1 incident]"},
		{"?", "copy the Wireshark filter"}, {"?", "effects"}, {"l", "크기 의존 유실"}, {"l", "CAUSE"}, {"Left", "s ago"}, {"Right", "CAUSE"}} {
		run("send-keys", "-t", "x", k[0])
		see(k[1])
	}
	run("resize-window", "-t", "x", "-x", "50", "-y", "12")
	see("needs 60 x 16")
	run("resize-window", "-t", "x", "-x", "100", "-y", "30")
	see("CAUSE")
	run("send-keys", "-t", "x", "q")
	see("before")
	see("ready$")
	start()
	pids := strings.Fields(run("list-panes", "-t", "x", "-F", "#{pane_pid}"))
	out, err := exec.CommandContext(t.Context(), "pgrep", "-P", pids[0]).Output()
	if err != nil {
		t.Fatalf("the program's process: %v", err)
	}
	if err := exec.CommandContext(t.Context(), "kill", "-TERM", strings.TrimSpace(string(out))).Run(); err != nil {
		t.Fatal(err)
	}
	see("before")
	run("send-keys", "-t", "x", "echo still here", "Enter")
	see("still here")
}

// One frame without a terminal, from a capture and from this host.
func TestTopOnce(t *testing.T) {
	a := &app{lang: "en"}
	c := newTop(a)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = write
	c.SetArgs([]string{"--once", "--replay", "../../fixtures/gpki-2023-11-17/packets.pcap.zst", "--tz", "UTC"})
	err = c.ExecuteContext(t.Context())
	os.Stdout = old
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	n, _ := read.Read(b)
	out := string(b[:n])
	if !strings.Contains(out, "CAUSE  Size-dependent packet loss") || !strings.Contains(out, "06:22:08") || strings.Count(out, "\n") != 24 {
		t.Errorf("the frame:\n%s", out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("the frame has control characters")
	}
}
