package sink

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// TestIntegrationJournald sends to systemd's own journal daemon, started in a
// mount namespace with a /run of its own, and reads back with journalctl.
func TestIntegrationJournald(t *testing.T) {
	const daemon = "/lib/systemd/systemd-journald"
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if _, err := os.Stat(daemon); err != nil {
		t.Skip("systemd-journald is not installed")
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		"mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && mkdir -p /run/systemd/journal /run/log/journal && exec "+daemon)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	root := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root")
	k, err := NewJournald(JournaldOptions{Path: filepath.Join(root, "run/systemd/journal/socket")})
	if err != nil {
		t.Fatal(err)
	}
	s, r := deliver(t, Output{Sink: k}) // it may come before the daemon does
	small, large := aFinding(0, analyze.Open, "error"), aFinding(1, analyze.Open, "warn")
	large.Evidence[0].Note = strings.Repeat("진단", 120_000) // 720 kB: beyond a datagram
	for _, f := range []*analyze.Finding{small, large} {
		rec, err := FindingRecord(f)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, rec)
	}
	eventually(t, "both are sent", func() bool { return r.Status().Sent == 2 })
	for _, f := range []*analyze.Finding{small, large} {
		var e map[string]any
		eventually(t, "journalctl shows "+f.ID, func() bool {
			out, err := exec.Command("journalctl", "-D", filepath.Join(root, "run/log/journal"), "-o", "json", "--all", "JINDAN_ID="+f.ID).Output()
			return err == nil && json.Unmarshal(out, &e) == nil
		})
		want, _ := FindingRecord(f)
		if e["JINDAN_RECORD"] != string(want.Body) || e["MESSAGE"] != line(f.Title.En+": "+f.Summary.En) ||
			e["PRIORITY"] != map[string]string{"error": "3", "warn": "4"}[f.Severity] || e["SYSLOG_IDENTIFIER"] != "jindan" {
			t.Errorf("%.600v", e)
		}
	}
	sent := sinktest.Feed(t, func(f *analyze.Finding) error {
		rec, err := FindingRecord(f)
		put(t, s, rec)
		return err
	})
	eventually(t, "the incident is sent", func() bool { return r.Status().Sent == 2+uint64(len(sent)) })
	rule := "JINDAN_RULE=size-dependent-loss"
	eventually(t, "the journal has the last of it", func() bool {
		out, err := exec.Command("journalctl", "-D", filepath.Join(root, "run/log/journal"), "-o", "cat", rule, "JINDAN_STATE=resolved").Output()
		return err == nil && len(out) > 0
	})
	out, err := exec.Command("journalctl", "-D", filepath.Join(root, "run/log/journal"), "-o", "json", "--all", "SYSLOG_IDENTIFIER=jindan").Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		body, _ := e["JINDAN_RECORD"].(string)
		if e["JINDAN_ID"] == small.ID || e["JINDAN_ID"] == large.ID {
			continue
		}
		if f := sent.Take(t, []byte(body)); f != nil && (e["JINDAN_ID"] != f.ID || e["JINDAN_STATE"] != string(f.State) ||
			e["PRIORITY"] != map[string]string{"error": "3", "warn": "4", "info": "6"}[f.Severity]) {
			t.Errorf("%.600v", e)
		}
	}
	sent.Done(t)
}

func TestJournaldFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	k, err := NewJournald(JournaldOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	s, r := deliver(t, Output{Sink: k, Timeout: 200 * time.Millisecond})
	put(t, s, record(t, 0, analyze.Open, "warn"))
	eventually(t, "retries while there is no socket", func() bool { return r.Status().Retried >= 2 })
	listen := func() *net.UnixConn {
		os.Remove(path)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := listen()
	eventually(t, "it is sent", func() bool { return r.Status().Sent == 1 })
	c.Close() // the daemon restarts
	c = listen()
	defer c.Close()
	put(t, s, record(t, 1, analyze.Open, "warn"))
	eventually(t, "it goes to the new one", func() bool { return r.Status().Sent == 2 })
	for i := range 2000 { // nobody reads
		put1(t, s, record(t, i, analyze.Open, "warn"))
	}
	eventually(t, "a full socket is a timeout, not a hang", func() bool { return strings.Contains(r.Status().LastError, "timeout") })
	buf := make([]byte, 1<<20)
	eventually(t, "and it goes on when somebody does", func() bool {
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		for {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		return r.Status().Lag == 0
	})
}

func TestJournalEntryWithLineBreaks(t *testing.T) {
	k, err := NewJournald(JournaldOptions{Path: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Send(context.Background(), messages(t, 1), make([]Outcome, 1)); err == nil {
		t.Error("no error without a socket")
	}
	m := messages(t, 1)[0]
	m.Data = []byte("a\nb")
	b, err := journalEntry(nil, &m)
	if err != nil || !strings.HasSuffix(string(b), "JINDAN_RECORD\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n") {
		t.Errorf("%v %q", err, b)
	}
}
