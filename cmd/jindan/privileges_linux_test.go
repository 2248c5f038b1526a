package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jindan/cmd/internal/cli"
)

// TestIntegrationPrivileges: an agent that root started holds what it needs and nothing else, in every thread, and cannot get more.
func TestIntegrationPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: others have nothing to give up")
	}
	bin := filepath.Join(t.TempDir(), "jindan") // as it is released: the runtime changes all threads of a program without cgo only
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("go build: %v: %s", err, out)
	}
	const want = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH
	var messages bytes.Buffer
	agent := exec.Command(bin, "run", "-o", "ndjson", "-i", "lo")
	agent.Env = append(os.Environ(), "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_ENABLED=false")
	agent.Stderr = &messages
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill() }() // it has ended unless the test failed
	time.Sleep(3 * time.Second)
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", agent.Process.Pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d threads: %v %s", len(files), err, messages.String())
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if !strings.Contains(string(b), fmt.Sprintf("%s:\t%016x\n", set, want)) {
				t.Errorf("%s is not %x in\n%s", set, want, b)
			}
		}
		if !strings.Contains(string(b), "NoNewPrivs:\t1\n") || !strings.Contains(string(b), fmt.Sprintf("CapInh:\t%016x\n", 0)) {
			t.Errorf("no_new_privs is not set, or something is inheritable: %s", b)
		}
	}
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil && agent.ProcessState.ExitCode() != cli.ExitTerminate {
		t.Errorf("%v: %s", err, messages.String())
	}
}
