package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jindan/analyze"
)

// mostLag is how old the last sight of an open fault may be in /findings: a window of a second, half of one until it is judged, and a
// state each second, with as much again for a busy machine.
const mostLag = 5 * time.Second

// What /findings says of a fault that goes on is as of the last seconds, and not of the record that opened it; `jindan top` beside the
// agent takes little memory of its own.
func TestFindingsStayFresh(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: watches another process for half a minute")
	}
	program, dir := built(t), t.TempDir()
	socket, conf := filepath.Join(dir, "agent.sock"), filepath.Join(dir, "jindan.yaml")
	if err := os.WriteFile(conf, []byte("http: {listen: "+socket+"}\nrecorder: {enabled: false}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A server that never closes: its sockets stay in CLOSE_WAIT.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var held []net.Conn
	for range 40 {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
		c.Close()
	}
	defer func() {
		for _, s := range held {
			s.Close()
		}
	}()
	agent := exec.CommandContext(t.Context(), program, "run", "--no-capture", "--config", conf)
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) }
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	leak := func() *analyze.Finding {
		resp, err := client.Get("http://agent/findings")
		if err != nil {
			return nil
		}
		defer resp.Body.Close()
		for d := json.NewDecoder(resp.Body); ; {
			f := new(analyze.Finding)
			if d.Decode(f) != nil {
				return nil
			}
			if f.Rule == "close-wait" && f.State != analyze.Resolved {
				return f
			}
		}
	}
	began := time.Now()
	for leak() == nil {
		if time.Since(began) > time.Minute {
			t.Fatal("the leak is not found")
		}
		time.Sleep(100 * time.Millisecond)
	}
	var worst time.Duration
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		f := leak()
		if f == nil {
			t.Fatal("it is open no more")
		}
		worst = max(worst, time.Since(f.LastSeen.Time()))
	}
	t.Logf("at most %.1f s old", worst.Seconds())
	if worst > mostLag {
		t.Errorf("/findings is up to %.1f s old, want %s", worst.Seconds(), mostLag)
	}
	checkTopMemory(t, program, conf)
}

// topMemory is what `jindan top` beside the agent may take, without pages of the program's file, which the agent has in memory, too: of
// its 30 MB ten minutes of an incident have some.
const topMemory = 20 << 10 // KiB

func checkTopMemory(t *testing.T, program, conf string) {
	t.Helper()
	x := newTerminal(t)
	x.run("send-keys", "-t", "x", "clear; "+program+" --lang en top --config "+conf, "Enter")
	x.see("CLOSE_WAIT accumulation")
	time.Sleep(5 * time.Second)
	b, err := os.ReadFile("/proc/" + x.child() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	kib := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "RssAnon:" {
			for _, c := range f[1] {
				kib = kib*10 + int(c-'0')
			}
		}
	}
	t.Logf("jindan top: %d KiB of its own", kib)
	if kib == 0 || kib > topMemory {
		t.Errorf("jindan top takes %d KiB of its own beside an agent", kib)
	}
	x.run("send-keys", "-t", "x", "q")
}
