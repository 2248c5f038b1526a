package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/analyze/view"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/top"
)

// built builds the program.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "jindan")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// itself is this test program as jindan, for a shell.
func itself(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return asProgram + "=1 " + self
}

// terminal is a real one of 80 by 24, with a shell.
type terminal struct {
	t            *testing.T
	tmux, socket string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		t.Skip("needs tmux")
	}
	x := &terminal{t, tmux, filepath.Join(t.TempDir(), "tmux")}
	x.run("new-session", "-d", "-s", "x", "-x", "80", "-y", "24", "env", "PS1=ready$ ", "sh")
	t.Cleanup(func() { _ = exec.Command(tmux, "-S", x.socket, "kill-server").Run() }) // the server of this socket, no other
	return x
}

func (x *terminal) run(args ...string) string {
	x.t.Helper()
	c := exec.CommandContext(x.t.Context(), x.tmux, append([]string{"-f", "/dev/null", "-u", "-S", x.socket}, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	out, err := c.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// see waits until something stands on the screen.
func (x *terminal) see(what string) {
	x.t.Helper()
	screen := ""
	for range 400 { // 40 s: the machine may be busy
		if screen = x.run("capture-pane", "-p", "-t", "x"); strings.Contains(screen, what) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	x.t.Fatalf("%q does not come:\n%s", what, screen)
}

// child is the process that the shell runs.
func (x *terminal) child() string {
	x.t.Helper()
	out, err := exec.CommandContext(x.t.Context(), "pgrep", "-P", strings.TrimSpace(x.run("list-panes", "-t", "x", "-F", "#{pane_pid}"))).Output()
	if err != nil {
		x.t.Fatalf("the program's process: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// A real terminal: the screens change by their keys, the language too, and the terminal is as it was before after "q" and after
// SIGTERM.
func TestTopInTerminal(t *testing.T) {
	program := itself(t)
	recorded, err := filepath.Abs("../../fixtures/gpki-2023-11-17/packets.pcap.zst")
	if err != nil {
		t.Fatal(err)
	}
	x := newTerminal(t)
	run, see := x.run, x.see
	start := func() {
		run("send-keys", "-t", "x", "clear; echo before; "+program+" --lang en top --replay "+recorded+" --speed 20", "Enter")
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
	if err := exec.CommandContext(t.Context(), "kill", "-TERM", x.child()).Run(); err != nil {
		t.Fatal(err)
	}
	see("before")
	see("ready$") // what is typed before is the program's
	run("send-keys", "-t", "x", "echo still here", "Enter")
	see("still here")
}

// One frame without a terminal, from a capture and from this host.
func TestTopOnce(t *testing.T) {
	a := &app{App: cli.App{Lang: "en"}}
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

// Beside an agent the terminal shows what the agent sees, from before it was asked, too; a killed agent is said to be gone, and its
// return goes on by itself. The agent itself shows on its terminal that it lives.
func TestTopBesideAgent(t *testing.T) {
	program := itself(t)
	x, y := newTerminal(t), newTerminal(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "jindan.yaml")
	if err := os.WriteFile(conf, []byte("http: {listen: "+filepath.Join(dir, "agent.sock")+"}\nrecorder: {enabled: false}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := func() {
		y.run("send-keys", "-t", "x", "clear; "+program+" --lang en run -o text --no-capture --config "+conf, "Enter")
		y.see("findings open: ")
	}
	agent()
	time.Sleep(8 * time.Second) // two states at least are kept before anybody asks
	x.run("send-keys", "-t", "x", "clear; echo before; "+program+" --lang en top --config "+conf, "Enter")
	x.see("agent on ")
	x.run("send-keys", "-t", "x", "Left")
	x.see("s ago")
	x.run("send-keys", "-t", "x", "Right")
	if err := exec.CommandContext(t.Context(), "kill", "-KILL", y.child()).Run(); err != nil {
		t.Fatal(err)
	}
	x.see("agent gone since ")
	agent()
	x.see("agent on ")
	y.see("findings open: ") // what agent() saw may have been the line of the one that was killed
	screen := y.run("capture-pane", "-p", "-t", "x")
	if n := strings.Count(screen, "findings open: "); n != 1 {
		t.Errorf("the line that is written anew stands %d times:\n%s", n, screen)
	}
	x.run("send-keys", "-t", "x", "q")
	x.see("before")
	// Its end leaves the diagnosis on a line of its own.
	y.run("send-keys", "-t", "x", "C-c", "")
	y.see("ready$")
	if screen := y.run("capture-pane", "-p", "-t", "x"); !strings.Contains(screen, "\nRead ") || strings.Contains(screen, "findings open: ") {
		t.Errorf("at the end:\n%s", screen)
	}
}

// A panic of the analysis gives the terminal back, and says what it was.
func TestTopPanics(t *testing.T) {
	if os.Getenv("JINDAN_TEST_PANIC") != "" {
		f := &topFlags{replay: "../../fixtures/gpki-2023-11-17/packets.pcap.zst"}
		feed := &topFeed{app: &app{App: cli.App{Lang: "en", Color: "never"}}, view: view.New()} // no catalogue
		t.Fatalf("ended: %v", feed.app.terminal(t.Context(), f, feed, top.Frame{}))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x := newTerminal(t)
	x.run("send-keys", "-t", "x", "clear; echo before; JINDAN_TEST_PANIC=1 "+self+" -test.run 'TestTopPanics$'", "Enter")
	x.see("the analysis failed")
	x.run("send-keys", "-t", "x", "q")
	x.see("before")
	x.see("ended: the analysis failed")
	x.see("ready$")
	x.run("send-keys", "-t", "x", "echo still here", "Enter")
	x.see("still here")
}
