package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/sink"
)

// What BenchmarkSustained asks of a delivery, beside the receivers in another process.
const (
	sustainedRate = 5000 // findings a second
	sustainedFor  = time.Minute
	sustainedOpen = 1000 // findings that take turns: a receiver gets the states of one in order
	sustainedRSS  = 128  // MB
)

// TestMain turns the test binary into the agent of BenchmarkSustained.
func TestMain(m *testing.M) {
	if dir := os.Getenv("JINDAN_KAFKA_CHILD"); dir != "" {
		if err := sustain(dir, os.Getenv("JINDAN_KAFKA_BROKER"), os.Getenv("JINDAN_KAFKA_SYSLOG")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sustained is what the agent of BenchmarkSustained says of itself.
type sustained struct {
	Findings uint64        `json:"findings"`
	Fed      time.Duration `json:"fed"`    // how long it took to hand them over
	Took     time.Duration `json:"took"`   // until all were delivered
	Behind   uint64        `json:"behind"` // most findings that a sink was behind
	RSS      int           `json:"rss"`    // kB, at its highest
	Status   []sink.Status `json:"status"`
}

// sustain feeds a file, syslog over TCP and Kafka at once.
func sustain(dir, broker, syslog string) error {
	file, err := sink.NewFile(sink.FileOptions{Path: filepath.Join(dir, "out")})
	if err != nil {
		return err
	}
	over, err := sink.NewSyslog(sink.SyslogOptions{Address: syslog})
	if err != nil {
		return err
	}
	k, err := New(Options{Address: []string{broker}})
	if err != nil {
		return err
	}
	d, err := sink.Start(sink.Options{Spool: sink.SpoolOptions{Path: filepath.Join(dir, "spool")},
		Outputs: []sink.Output{{Name: "file", Sink: file}, {Name: "syslog", Sink: over}, {Name: "kafka", Sink: k}}})
	if err != nil {
		return err
	}
	var s sustained
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.Findings < sustainedRate*uint64(sustainedFor/time.Second) {
		<-tick.C
		for due := uint64(time.Since(begin).Seconds() * sustainedRate); s.Findings < due; s.Findings++ {
			if err := d.Finding(state(s.Findings)); err != nil {
				return err
			}
		}
		for _, st := range d.Status() {
			s.Behind = max(s.Behind, st.Lag)
		}
	}
	s.Fed = time.Since(begin)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		return err
	}
	s.Took, s.Status = time.Since(begin), d.Status()
	if s.RSS, err = peakRSS(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// state is the n-th record: as large as a finding with a summary in two languages and evidence is.
func state(n uint64) *analyze.Finding {
	at := capture.Instant(1_700_000_000_000_000_000 + n*200_000)
	f := &analyze.Finding{Schema: analyze.FindingSchema, ID: fmt.Sprintf("surge-%012x", n%sustainedOpen), Seq: n, Rule: "surge", State: analyze.Update,
		Severity: "warn", Time: at, Onset: at, Subject: analyze.Subject{Kind: analyze.SubjectService, Host: "192.0.2.1", Port: 443},
		Summary: analyze.Text{En: "192.0.2.1:443 gets 312 new connections a second (before: 20) from 40 sources (38 before).",
			Ko: "192.0.2.1:443에 새 연결이 초당 312건(이전 20건) 들어옵니다. 출처는 40곳(이전 38곳)입니다."}}
	for i := range 3 {
		f.Evidence = append(f.Evidence, analyze.Evidence{At: at, Flow: "203.0.113." + strconv.Itoa(i) + ":40000 > 192.0.2.1:443", Note: "new connection"})
	}
	return f
}

// peakRSS is VmHWM of proc(5), in kB.
func peakRSS() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// BenchmarkSustained delivers 5,000 findings a second for a minute to a file, over syslog and to Kafka at once, from a process of its own.
// Run it with -benchtime 1x.
func BenchmarkSustained(b *testing.B) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "jindan"))
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var heard atomic.Uint64
	go receive(l, &heard)
	for b.Loop() {
		dir := b.TempDir()
		heard.Store(0)
		agent := exec.Command(os.Args[0])
		agent.Env = append(os.Environ(), "JINDAN_KAFKA_CHILD="+dir, "JINDAN_KAFKA_BROKER="+broker.ListenAddrs()[0], "JINDAN_KAFKA_SYSLOG="+l.Addr().String())
		agent.Stderr = os.Stderr
		out, err := agent.Output()
		if err != nil {
			b.Fatal(err)
		}
		var s sustained
		if err := json.Unmarshal(out, &s); err != nil {
			b.Fatal(err)
		}
		for _, st := range s.Status {
			if st.Sent != s.Findings || st.Dropped != 0 || st.Rejected != 0 {
				b.Errorf("%d findings: %+v", s.Findings, st)
			}
		}
		written, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			b.Fatal(err)
		}
		if lines := uint64(bytes.Count(written, []byte("\n"))); lines != s.Findings {
			b.Errorf("the file has %d of %d", lines, s.Findings)
		}
		for end := time.Now().Add(10 * time.Second); heard.Load() < s.Findings && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := heard.Load(); n != s.Findings {
			b.Errorf("syslog has %d of %d", n, s.Findings)
		}
		b.ReportMetric(float64(s.Findings)/s.Took.Seconds(), "findings/s")
		b.ReportMetric(float64(s.RSS)/1000, "MB-RSS")
		b.ReportMetric(float64(s.Behind), "most-behind")
		if rate := float64(s.Findings) / s.Took.Seconds(); rate < sustainedRate*0.99 || s.RSS/1000 >= sustainedRSS {
			b.Errorf("%.0f findings/s with %d MB; asked are %d within %d MB", rate, s.RSS/1000, sustainedRate, sustainedRSS)
		}
	}
}

// receive counts messages with octet counting (RFC 6587 §3.4.1).
func receive(l net.Listener, n *atomic.Uint64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReaderSize(c, 1<<16)
			for {
				size, err := r.ReadString(' ')
				if err != nil {
					return
				}
				k, err := strconv.ParseInt(strings.TrimSuffix(size, " "), 10, 32)
				if err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, r, k); err != nil {
					return
				}
				n.Add(1)
			}
		}()
	}
}
