package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/agent"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
)

// unwellAfter is when an agent whose engine stands still says so.
const unwellAfter = agent.MaxLate + 2*time.Second

// TestIntegrationSourcesLost takes the agent's interface away, gives it back, takes it away again, and then removes its network
// namespace. The diagnosis says so, and so does that of the recording.
func TestIntegrationSourcesLost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	ns := fmt.Sprintf("jindan-lost-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	wire := func() {
		ip("-n", ns, "link", "add", "wire", "type", "veth", "peer", "name", "far")
		ip("-n", ns, "link", "set", "far", "up")
		ip("-n", ns, "addr", "add", "10.98.7.1/24", "dev", "wire")
		ip("-n", ns, "link", "set", "wire", "up")
	}
	ip("netns", "add", ns)
	removed := false
	defer func() {
		if !removed {
			ip("netns", "del", ns)
		}
	}()
	wire()

	dir := t.TempDir()
	api := filepath.Join(dir, "api")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, "recording")
	agent := exec.Command(self, "run", "-o", "ndjson", "--netns", ns, "-i", "wire", "--record", record)
	agent.Env = append(os.Environ(), asProgram+"=1", "JINDAN_HTTP_LISTEN="+api, "JINDAN_RECORDER_DIR="+filepath.Join(dir, "incidents"))
	var out, messages bytes.Buffer
	agent.Stdout, agent.Stderr = &out, &messages
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill() }() // it has ended unless the test failed

	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", api)
		}}}
	get := func(path string) string {
		r, err := client.Get("http://agent" + path)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	value := func(series string) (v float64) {
		for line := range strings.Lines(get("/metrics")) {
			if rest, ok := strings.CutPrefix(line, series+" "); ok {
				_, _ = fmt.Sscan(rest, &v)
			}
		}
		return v
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 15 s; %s%s", what, get("/metrics"), messages.String())
			}
		}
	}
	label := fmt.Sprintf(`{netns=%q`, ns)
	packets := func() float64 { return value("jindan_packets_total" + label + "}") }
	// A SYN to a host that is not there would wait for ARP: it is given an address.
	knock := func() {
		_ = exec.Command("ip", "-n", ns, "neigh", "replace", "10.98.7.2", "lladdr", "02:00:00:00:00:01", "dev", "wire").Run()
		_ = exec.Command("ip", "netns", "exec", ns, "timeout", "0.3", "bash", "-c", "exec 3<>/dev/tcp/10.98.7.2/80").Run()
	}

	until("packets are seen", func() bool { knock(); return packets() > 0 })
	seen := time.Now()
	ip("-n", ns, "link", "del", "wire")
	until("the interface is missed", func() bool { return value(`jindan_source_failures_total`+label+`,source="capture"}`) == 1 })
	if got := get("/healthz"); got != "ok\n" {
		t.Errorf("without its interface: %s", got)
	}
	before := packets()
	wire()
	until("packets are seen again", func() bool { knock(); return packets() > before })
	ip("-n", ns, "link", "del", "wire")
	until("the interface is missed again", func() bool { return value(`jindan_source_failures_total`+label+`,source="capture"}`) == 2 })

	time.Sleep(time.Until(seen.Add(12 * time.Second))) // CLOSE_WAIT is ruled out by 10 s of sockets
	ip("netns", "del", ns)
	removed = true
	time.Sleep(unwellAfter)
	if got := get("/healthz"); got != "ok\n" {
		t.Errorf("without its namespace: %s", got)
	}
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_ = agent.Wait()
	if code := agent.ProcessState.ExitCode(); code != 0 && code != cli.ExitTerminate || time.Since(begun) > 5*time.Second {
		t.Errorf("exit code %d after %v: %s", code, time.Since(begun), messages.String())
	}
	live := verdicts(out.Bytes())
	for step := range needPackets(t) {
		if v := live[step]; !strings.HasPrefix(v, "not_assessable: No packets since ") || !strings.Contains(v, ": capture on wire: ") {
			t.Errorf("%s: %q", step, v)
		}
	}
	if v := live["close-wait"]; !strings.HasPrefix(v, "ruled_out: ") {
		t.Errorf("close-wait, which sockets tell: %q", v)
	}
	replay := exec.Command(self, "analyze", "-o", "ndjson", filepath.Join(record, ns))
	replay.Env = append(os.Environ(), asProgram+"=1")
	again, err := replay.Output()
	if err != nil {
		t.Fatalf("analyse the recording: %v", err)
	}
	if got := verdicts(again); !maps.Equal(got, live) {
		t.Errorf("the recording says %q,\nthe agent %q", got, live)
	}
	samples, err := os.ReadFile(filepath.Join(record, ns, "samples.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(samples, []byte(`"`+string(capture.ChangeCapture)+`"`)); n != 3 {
		t.Errorf("%d markers for an interface that was gone, back and gone", n)
	}
}

// TestIntegrationNamespaceDeleted: the agent does not keep a network namespace in being that was deleted, and goes on with the
// others.
func TestIntegrationNamespaceDeleted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	doomed, stays, far := fmt.Sprintf("jindan-doomed-%d", pid), fmt.Sprintf("jindan-stays-%d", pid), fmt.Sprintf("jd%d", pid%1e6)
	ip := func(args ...string) error { return exec.Command("ip", args...).Run() }
	for _, ns := range []string{doomed, stays} {
		if err := ip("netns", "add", ns); err != nil {
			t.Skipf("ip netns add: %v", err)
		}
		defer func() { _ = ip("netns", "del", ns) }()
	}
	// The kernel removes both ends of the pair when the namespace of one is really gone.
	if err := ip("-n", stays, "link", "add", far, "type", "veth", "peer", "name", "near", "netns", doomed); err != nil {
		t.Fatal(err)
	}
	var out, messages bytes.Buffer
	agent := exec.Command(self, "run", "-o", "ndjson", "--netns", doomed+","+stays)
	agent.Env = append(os.Environ(), asProgram+"=1", "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_ENABLED=false")
	agent.Stdout, agent.Stderr = &out, &messages
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill() }() // it has ended unless the test failed
	time.Sleep(2 * time.Second)
	if err := ip("netns", "del", doomed); err != nil {
		t.Fatal(err)
	}
	gone := false
	for end := time.Now().Add(15 * time.Second); !gone && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		gone = ip("-n", stays, "link", "show", far) != nil
	}
	if !gone {
		t.Error("15 s after it was deleted the namespace is still there")
	}
	time.Sleep(time.Second)
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if n := bytes.Count(out.Bytes(), []byte(`"schema":"`+analyze.DiagnosisSchema)); n != 2 {
		t.Errorf("%d diagnoses of two namespaces: %s", n, messages.String())
	}
	if !strings.Contains(messages.String(), doomed+" is deleted") {
		t.Errorf("nothing says so: %s", messages.String())
	}
}

// verdicts are those of the diagnosis in records, with their reasons, by step.
func verdicts(records []byte) map[string]string {
	all := make(map[string]string)
	for line := range bytes.Lines(records) {
		var d struct {
			Schema string
			Steps  []analyze.StepVerdict
		}
		if json.Unmarshal(line, &d) == nil && d.Schema == analyze.DiagnosisSchema {
			for _, v := range d.Steps {
				all[v.Step] = fmt.Sprintf("%s: %s", v.Verdict, v.Reason.En)
			}
		}
	}
	return all
}

// TestIntegrationPacketsNotPermitted runs the agent without the right to capture: it goes on with what is left, and the diagnosis
// says what that is not enough for, and why.
func TestIntegrationPacketsNotPermitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it takes one capability away, and no other")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skipf("needs setpriv (util-linux): %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ why, flag string }{
		{"not permitted: run as root, or with CAP_NET_RAW.", "--interface=lo"},
		{"capture is switched off.", "--no-capture"},
	} {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		record := filepath.Join(t.TempDir(), "recording")
		agent := exec.CommandContext(ctx, "setpriv", "--bounding-set=-net_raw", self, "record", record, "--for", "4s", c.flag)
		agent.Env = append(os.Environ(), asProgram+"=1", "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_ENABLED=false")
		if out, err := agent.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		replay := exec.Command(self, "analyze", "-o", "ndjson", record)
		replay.Env = append(os.Environ(), asProgram+"=1")
		out, err := replay.Output()
		if err != nil {
			t.Fatalf("analyse the recording: %v", err)
		}
		got := verdicts(out)
		for step := range needPackets(t) {
			if !strings.HasPrefix(got[step], "not_assessable: No packets: "+c.why) {
				t.Errorf("%s: %q", step, got[step])
			}
		}
		if v := got["close-wait"]; strings.Contains(v, "No packets") {
			t.Errorf("close-wait, which sockets tell: %q", v)
		}
	}
}

// TestProcfsLost takes the agent's procfs away while it runs: it goes on, names each file once, and takes back what the counters
// had ruled out.
func TestProcfsLost(t *testing.T) {
	t.Parallel() // waits for most of its time
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	recording := func(proc string) string { return filepath.Join(filepath.Dir(proc), "recording") }
	run := func(proc string, span time.Duration) (log string, steps map[string]string, err error) {
		var messages bytes.Buffer
		record := recording(proc)
		agent := exec.Command(self, "record", record, "--for", span.String(), "--no-capture")
		agent.Env = append(os.Environ(), asProgram+"=1", "JINDAN_HTTP_LISTEN=", "JINDAN_RECORDER_ENABLED=false", "JINDAN_HOST_PROCFS="+proc)
		agent.Stderr = &messages
		if err := agent.Run(); err != nil {
			return "", nil, fmt.Errorf("%w: %s", err, messages.String())
		}
		replay := exec.Command(self, "analyze", "-o", "ndjson", record)
		replay.Env = append(os.Environ(), asProgram+"=1")
		out, err := replay.Output()
		return messages.String(), verdicts(out), err
	}
	var procs [2]string
	for i := range procs {
		procs[i] = filepath.Join(t.TempDir(), "proc")
		if err := os.CopyFS(procs[i], os.DirFS("../../capture/host/testdata/proc")); err != nil {
			t.Fatal(err)
		}
	}
	// A full accept queue, of the same step, is ruled out after 10 s of looking.
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() {
		if log, steps, err := run(procs[0], 13*time.Second); err != nil || !strings.Contains(steps["exhaustion"], "The fullest limit is ") {
			t.Errorf("with its procfs: %v, %q; %s", err, steps["exhaustion"], log)
		}
	})
	// The open descriptors must notice, too, as with a module that is unloaded.
	proc := procs[1]
	beside.Go(func() {
		for range 300 { // the agent may be slow to start
			if _, err := os.Stat(recording(proc)); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		err := filepath.WalkDir(proc, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return os.Truncate(path, 0)
		})
		if err := errors.Join(err, os.RemoveAll(proc)); err != nil {
			t.Error(err)
		}
	})
	log, steps, err := run(proc, 15*time.Second) // the engine believes counters for 10 s, the log tells every 5 s
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"net/snmp", "net/netstat", "sys/fs/file-nr"} {
		if n := strings.Count(log, proc+"/"+file+": "); n != 1 {
			t.Errorf("%s is named %d times: %s", file, n, log)
		}
	}
	if v := steps["exhaustion"]; strings.Contains(v, "limit") { // that of the accept queues is ruled out by sockets
		t.Errorf("without its procfs: exhaustion %q", v)
	}
	if v := steps["close-wait"]; !strings.HasPrefix(v, "ruled_out: ") {
		t.Errorf("without its procfs: close-wait, which sockets tell, %q", v)
	}
}

// needPackets are the steps that only packets can rule out.
func needPackets(t *testing.T) map[string]bool {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	need := map[string]bool{}
	for _, s := range set.Steps {
		for _, alternatives := range s.Needs {
			if slices.Equal(alternatives, []string{"packets"}) {
				need[s.ID] = true
			}
		}
	}
	if len(need) == 0 {
		t.Fatal("no step needs packets")
	}
	return need
}
