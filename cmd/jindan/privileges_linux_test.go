package main

import (
	"bytes"
	"fmt"
	"net"
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

// dividedProgram builds the agent as it is released: the runtime changes all threads of a program without cgo only.
func dividedProgram(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: others have nothing to give up")
	}
	bin := filepath.Join(t.TempDir(), "jindan")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("go build: %v: %s", err, out)
	}
	return bin
}

// dividedAgent starts an agent on the loopback interface.
func dividedAgent(t *testing.T, environment ...string) (agent *exec.Cmd, messages *bytes.Buffer) {
	t.Helper()
	messages = new(bytes.Buffer)
	agent = exec.Command(dividedProgram(t), "run", "-o", "ndjson", "-i", "lo")
	agent.Env = append(append(os.Environ(), "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_ENABLED=false"), environment...)
	agent.Stderr = messages
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill() }) // it has ended unless the test failed
	return agent, messages
}

// keeperOf waits for the keeper of an agent, a child of it, and for the worker that the agent has become.
func keeperOf(t *testing.T, agent int) (pid int) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", agent, agent))
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent))
		if _, scanned := fmt.Sscan(string(b), &pid); err == nil && scanned == nil && strings.Contains(string(status), fmt.Sprintf("CapPrm:\t%016x\n", 0)) {
			time.Sleep(2 * time.Second) // it watches
			return pid
		}
	}
	t.Fatal("there is no keeper, or the agent has capabilities")
	return 0
}

// holds fails unless every thread of a process has these capabilities, and can get no more.
func holds(t *testing.T, who string, pid int, want uint64) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("%s: %d threads: %v", who, len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if !strings.Contains(string(b), fmt.Sprintf("%s:\t%016x\n", set, want)) {
				t.Errorf("%s: %s is not %x in\n%s", who, set, want, b)
			}
		}
		if !strings.Contains(string(b), "NoNewPrivs:\t1\n") || !strings.Contains(string(b), fmt.Sprintf("CapInh:\t%016x\n", 0)) {
			t.Errorf("%s: no_new_privs is not set, or something is inheritable: %s", who, b)
		}
	}
}

// alive tells whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

// TestIntegrationPrivileges: of an agent that root started, what reads packets holds nothing, in every thread, and cannot get anything;
// its keeper holds what the agent needs, and ends with it.
func TestIntegrationPrivileges(t *testing.T) {
	agent, messages := dividedAgent(t)
	keeper := keeperOf(t, agent.Process.Pid)
	holds(t, "worker", agent.Process.Pid, 0)
	holds(t, "keeper", keeper, 1<<unix.CAP_NET_RAW|1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_DAC_READ_SEARCH)
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil && agent.ProcessState.ExitCode() != cli.ExitTerminate {
		t.Errorf("%v: %s", err, messages)
	}
	if strings.Contains(messages.String(), "cannot see") || strings.Contains(messages.String(), "more") {
		t.Errorf("divided, it sees less: %s", messages)
	}
	for end := time.Now().Add(5 * time.Second); alive(keeper); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the keeper outlives its worker")
		}
	}
}

// TestIntegrationKeeperKilled: an agent whose keeper is killed ends with its diagnosis and an error, so that it is started again; the keeper of
// an agent that is killed ends, too.
func TestIntegrationKeeperKilled(t *testing.T) {
	agent, messages := dividedAgent(t)
	keeper := keeperOf(t, agent.Process.Pid)
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(messages.String(), "the keeper of capabilities is gone") {
			t.Errorf("%v: %s", err, messages)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on without a keeper")
	}
	agent, _ = dividedAgent(t)
	keeper = keeperOf(t, agent.Process.Pid)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	for end := time.Now().Add(5 * time.Second); alive(keeper); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the keeper outlives its worker")
		}
	}
}

// TestIntegrationDividedWrites: a divided agent writes where it is to, its socket and its recordings, and answers.
func TestIntegrationDividedWrites(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "jindan.sock")
	agent, messages := dividedAgent(t, "JINDAN_HTTP_LISTEN="+socket, "JINDAN_RECORDER_ENABLED=true", "JINDAN_RECORDER_DIR="+filepath.Join(dir, "incidents"))
	keeperOf(t, agent.Process.Pid)
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	_ = agent.Process.Signal(syscall.SIGTERM)
	if err := agent.Wait(); err != nil && agent.ProcessState.ExitCode() != cli.ExitTerminate || strings.Contains(messages.String(), "denied") {
		t.Errorf("%v: %s", err, messages)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}
