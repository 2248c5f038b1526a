package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/fixtures/lab"
	"jindan/fixtures/lab/testbed"
)

// TestIntegrationTopIncident looks at the incident of 2023 through the terminal view, while it happens: soon after the first request that failed the
// right root stands on the first screen, the minute before can be gone back to, the agent is killed and comes back, and after SIGTERM the
// terminal is as it was.
func TestIntegrationTopIncident(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: takes 80 s")
	}
	if err := testbed.Missing(); err != nil {
		t.Skip(err)
	}
	// First it is named with what might yet explain it ("CAUSE OPEN"), then as the cause.
	const loss, root = "  Size-dependent packet loss", "CAUSE  Size-dependent packet loss"
	program, dir := itself(t), t.TempDir()
	x, y := newTerminal(t), newTerminal(t)
	conf := filepath.Join(dir, "jindan.yaml")
	err := os.WriteFile(conf, fmt.Appendf(nil, "http: {listen: %s}\nrecorder: {enabled: false}\n", filepath.Join(dir, "agent.sock")), 0o600)
	if err != nil {
		t.Fatal(err)
	}

	s, err := lab.Find("S1")
	if err != nil {
		t.Fatal(err)
	}
	s.Faulty = 50 * time.Second
	built, broken := make(chan string, 1), make(chan struct{})
	build, fault := s.Build, s.Break
	s.Build = func(b *lab.Bench) error {
		if err := build(b); err != nil {
			return err
		}
		built <- b.Named("server").Namespace()
		return nil
	}
	s.Break = func(b *lab.Bench) error {
		close(broken)
		return fault(b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	type outcome struct {
		truth *lab.Truth
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		truth, err := lab.Run(ctx, s, lab.Options{Keep: filepath.Join(dir, "kept"), Seed: 1, Log: t.Logf})
		ended <- outcome{truth, err}
	}()
	over := false
	defer func() {
		if cancel(); !over {
			<-ended // the namespaces are taken down
		}
	}()
	var namespace string
	select {
	case namespace = <-built:
	case o := <-ended:
		over = true
		t.Fatal(o.err)
	}

	agent := func() {
		y.run("send-keys", "-t", "x", "clear; ip netns exec "+namespace+" env JINDAN_BUDGET_CPU=100% "+program+" --lang en run -o text --config "+conf, "Enter")
		y.see("findings open: ")
	}
	agent()
	x.run("send-keys", "-t", "x", "clear; echo before; "+program+" --lang en top --config "+conf, "Enter")
	x.see("agent on ")
	select {
	case <-broken:
	case o := <-ended:
		over = true
		t.Fatal(o.err)
	}
	if screen := x.run("capture-pane", "-p", "-t", "x"); strings.Contains(screen, "CAUSE") {
		t.Errorf("before anything was broken:\n%s", screen)
	}
	x.see("CAUSE")
	for was, end := "", time.Now().Add(time.Minute); !strings.HasSuffix(was, loss) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if heading := strings.TrimRight(strings.Split(x.run("capture-pane", "-p", "-t", "x"), "\n")[1], " "); heading != was {
			was = heading
			t.Log(time.Now().Format("15:04:05.0"), heading)
		}
	}
	seen := time.Now()
	x.see(root)

	// Half a minute back nothing had been broken; where one looks stays where it is while time goes on.
	for range 30 {
		x.run("send-keys", "-t", "x", "Left")
	}
	x.see("s ago")
	time.Sleep(time.Second)
	if screen := x.run("capture-pane", "-p", "-t", "x"); !strings.Contains(screen, "s ago") || strings.Contains(screen, "CAUSE") {
		t.Errorf("half a minute back:\n%s", screen)
	}
	x.run("send-keys", "-t", "x", "space")
	x.run("send-keys", "-t", "x", "space") // goes on with the newest
	x.see(root)

	if err := exec.CommandContext(t.Context(), "kill", "-KILL", y.child()).Run(); err != nil {
		t.Fatal(err)
	}
	x.see("agent gone since ")
	agent()
	x.see("agent on ")
	if err := exec.CommandContext(t.Context(), "kill", "-TERM", x.child()).Run(); err != nil {
		t.Fatal(err)
	}
	x.see("before")
	x.see("ready$")
	x.run("send-keys", "-t", "x", "echo still here", "Enter")
	x.see("still here")
	y.run("send-keys", "-t", "x", "C-c", "")
	y.see("ready$")

	o := <-ended
	if over = true; o.err != nil {
		t.Fatal(o.err)
	}
	t.Log("broken at", o.truth.FaultAt.Format("15:04:05.0"))
	failed := o.truth.Requests["client.requests.jsonl"].FirstFailed
	after := seen.Sub(failed)
	t.Logf("the root stood on the screen %v after the first request that failed was sent", after)
	// It takes 7 s and less where agent and programs have the machine to themselves; a busy one makes them wait for their turn.
	if failed.IsZero() || after > 30*time.Second {
		t.Errorf("the root stood on the screen %v after the first request that failed", after)
	}
}
