package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// refuse lets three ports refuse connections for some seconds, serve for some, and so on, each at moments of its own.
func refuse(t *testing.T) {
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		done := make(chan struct{})
		var all sync.WaitGroup
		t.Cleanup(func() { close(done); all.Wait() })
		all.Go(func() {
			for turn := time.Now(); ; {
				select {
				case <-done:
					if l != nil {
						l.Close()
					}
					return
				case <-time.After(20 * time.Millisecond):
				}
				lasts := 2 * time.Second
				if l == nil {
					lasts = 10 * time.Second // shorter ones are no more than remarks
				}
				if time.Since(turn) > lasts+rand.N(2*time.Second) {
					turn = time.Now()
					if l != nil {
						l.Close()
						l = nil
					} else if l, err = net.Listen("tcp", address); err != nil {
						l = nil // until the next turn
					}
				}
				if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
					c.Close()
				}
				if l != nil {
					if c, err := l.Accept(); err == nil {
						c.Close()
					}
				}
			}
		})
	}
}

// TestIntegrationKills kills the worker, the keeper or both at random moments, 50 times with JINDAN_KILLS=50, while ports refuse
// connections now and then and two receivers fail at random. What the agent had said a second before reaches both: the spool writes
// within milliseconds, a busy disk takes longer.
func TestIntegrationKills(t *testing.T) {
	kills := 2
	if n, err := strconv.Atoi(os.Getenv("JINDAN_KILLS")); err == nil {
		kills = n
	}
	bin, dir := dividedProgram(t), t.TempDir()
	receivers := []*sinktest.Restless{sinktest.NewRestless(t), sinktest.NewRestless(t)}
	file := filepath.Join(dir, "jindan.yaml")
	err := os.WriteFile(file, fmt.Appendf(nil, `
spool: {dir: %s/spool}
recorder: {enabled: false}
http: {listen: ""}
sinks:
  - type: stdout
  - {type: webhook, name: one, url: %q}
  - {type: webhook, name: two, url: %q}
`, dir, receivers[0].URL, receivers[1].URL), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	refuse(t)
	var sure []*analyze.Finding // at warn and above, said a second before the end
	said := 0
	for killed := 0; killed <= kills; killed++ {
		var messages bytes.Buffer
		agent := exec.Command(bin, "run", "-o", "ndjson", "-i", "lo", "--config", file)
		agent.Stderr = &messages
		out, err := agent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		type heard struct {
			*analyze.Finding
			at time.Time
		}
		var mu sync.Mutex
		var lines []heard
		read := make(chan struct{})
		go func() {
			defer close(read)
			sc := bufio.NewScanner(out)
			for sc.Buffer(nil, 16<<20); sc.Scan(); {
				if f, _ := sinktest.Finding(sc.Bytes()); f != nil && f.Severity != "info" { // the last line may be cut
					mu.Lock()
					lines = append(lines, heard{f, time.Now()})
					mu.Unlock()
				}
			}
		}()
		keeper := keeperOf(t, agent.Process.Pid)
		if killed == kills { // the last one delivers what is left
			waitFor(t, &messages, func() bool {
				for _, f := range sure {
					if !receivers[0].Has(f) || !receivers[1].Has(f) {
						return false
					}
				}
				return true
			})
		} else { // not before it has said something
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				mu.Lock()
				n := len(lines)
				mu.Unlock()
				if n > 0 {
					break
				}
			}
			time.Sleep(rand.N(4 * time.Second))
		}
		end := time.Now()
		switch {
		case killed == kills:
			_ = agent.Process.Signal(syscall.SIGTERM)
		case killed%3 == 0:
			_ = agent.Process.Kill()
		case killed%3 == 1:
			_ = syscall.Kill(keeper, syscall.SIGKILL)
		default:
			_ = syscall.Kill(keeper, syscall.SIGKILL)
			_ = agent.Process.Kill()
		}
		<-read
		_ = agent.Wait() // how it ends is what other tests are about
		for _, l := range lines {
			said++
			if l.at.Before(end.Add(-time.Second)) {
				sure = append(sure, l.Finding)
			}
		}
	}
	t.Logf("%d kills: %d records at warn and above, %d of them a second before an end", kills, said, len(sure))
	if len(sure) == 0 {
		t.Error("the agent has said nothing that could be lost")
	}
	for _, x := range receivers {
		x.Done(t)
	}
}

// waitFor fails if something does not come true within a minute.
func waitFor(t *testing.T, messages *bytes.Buffer, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not all that the agent said has arrived: %s", messages)
		}
	}
}
