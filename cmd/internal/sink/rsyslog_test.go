package sink

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// rsyslogd runs Debian's rsyslog with UDP, TCP, TLS and local sockets, writing
// one JSON object per message, and returns a reader of what came.
func rsyslogd(t *testing.T, a *sinktest.Authority) (addr map[string]string, got func() []map[string]string) {
	t.Helper()
	path, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Skip("rsyslogd is not installed: apt-get install rsyslog rsyslog-openssl")
	}
	dir := t.TempDir()
	port := func() string {
		l := listen(t)
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		return p
	}
	udp, tcp, sec := port(), port(), port()
	out, sock := filepath.Join(dir, "out"), filepath.Join(dir, "log")
	conf := fmt.Sprintf(`
global(workDirectory=%q maxMessageSize="64k" defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imudp") module(load="imtcp") module(load="imuxsock" sysSock.use="off")
template(name="j" type="list") {
 constant(value="{\"via\":\"") property(name="inputname")
 constant(value="\",\"pri\":\"") property(name="pri")
 constant(value="\",\"host\":\"") property(name="hostname" format="json")
 constant(value="\",\"app\":\"") property(name="app-name" format="json")
 constant(value="\",\"msgid\":\"") property(name="msgid" format="json")
 constant(value="\",\"time\":\"") property(name="timereported" dateFormat="rfc3339")
 constant(value="\",\"sd\":\"") property(name="structured-data" format="json")
 constant(value="\",\"msg\":\"") property(name="msg" format="json")
 constant(value="\"}\n") }
ruleset(name="r") { action(type="omfile" file=%q template="j") }
input(type="imudp" address="127.0.0.1" port=%q ruleset="r" name="udp")
input(type="imtcp" address="127.0.0.1" port=%q ruleset="r" name="tcp")
input(type="imtcp" address="127.0.0.1" port=%q ruleset="r" name="tls" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imuxsock" socket=%q ruleset="r" useSpecialParser="off" parseHostname="on")
`, dir, a.Path("ca.crt"), a.Path("server.crt"), a.Path("server.key"), out, udp, tcp, sec, sock)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-n", "-f", filepath.Join(dir, "conf"), "-i", filepath.Join(dir, "pid"))
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually(t, "rsyslogd listens", func() bool {
		for _, p := range []string{tcp, sec} {
			c, err := net.Dial("tcp", "127.0.0.1:"+p)
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	})
	return map[string]string{"udp": "127.0.0.1:" + udp, "tcp": "127.0.0.1:" + tcp, "tls": "127.0.0.1:" + sec, "unixgram": sock}, func() (all []map[string]string) {
		b, _ := os.ReadFile(out)
		for l := range strings.Lines(string(b)) {
			var m map[string]string
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				return nil // half a line
			}
			all = append(all, m)
		}
		return all
	}
}

func TestIntegrationRsyslog(t *testing.T) {
	a := sinktest.NewAuthority(t)
	a.Issue(t, "server", "127.0.0.1", time.Hour)
	a.Issue(t, "client", "", time.Hour)
	addr, got := rsyslogd(t, a)
	for _, network := range []string{"udp", "tcp", "tls", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			o := SyslogOptions{Network: network, Address: addr[network], Facility: "local0"}
			if network == "tls" {
				o.TLS = TLS{CA: a.Path("ca.crt"), Cert: a.Path("client.crt"), Key: a.Path("client.key")}
			}
			k, err := NewSyslog(o)
			if err != nil {
				t.Fatal(err)
			}
			before := len(got())
			s, r := deliver(t, Output{Sink: k})
			x := aFinding(0, analyze.Open, "error")
			x.Subject.Peer, x.Summary.En = `q"]\`, "진단 ✓"
			f, _ := FindingRecord(x)
			put(t, s, f)
			for i := 1; i < 50; i++ {
				put(t, s, record(t, i, analyze.Open, "warn"))
			}
			eventually(t, "50 messages in rsyslog's file", func() bool { return len(got()) >= before+50 })
			eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
			if st := r.Status(); st.Sent != 50 || st.LastError != "" {
				t.Errorf("%+v", st)
			}
			m := got()[before]
			if m["pri"] != "131" || m["host"] != "web01" || m["app"] != "jindan" || m["msgid"] != "finding" {
				t.Errorf("%v", m)
			}
			if !strings.Contains(m["sd"], `dst="q\"\]\\"`) || !strings.Contains(m["sd"], `id="`+x.ID+`"`) {
				t.Errorf("structured data %s", m["sd"])
			}
			if !strings.HasSuffix(m["msg"], "Upstream does not answer: 진단 ✓") {
				t.Errorf("message %q", m["msg"])
			}
			before = len(got())
			want := map[string]string{} // by what tells records apart: priority and words
			sinktest.Feed(t, func(f *analyze.Finding) error {
				r, err := FindingRecord(f)
				put(t, s, r)
				pri := map[string]string{"error": "131", "warn": "132", "info": "134"}[f.Severity] // local0 (RFC 5424 §6.2.1)
				want[fmt.Sprintf(`id="%s" seq="%d" state="%s" severity="%s" rule="%s"`, f.ID, f.Seq, f.State, f.Severity, f.Rule)] = pri + " " + line(f.Title.En+": "+f.Summary.En)
				return err
			})
			eventually(t, "the incident is in rsyslog's file", func() bool { return len(got()) >= before+len(want) })
			for _, m := range got()[before:] {
				for sd, rest := range want {
					if strings.Contains(m["sd"], sd) && m["pri"]+" "+strings.TrimLeft(m["msg"], " \ufeff") == rest {
						delete(want, sd)
					}
				}
			}
			for sd, rest := range want {
				t.Errorf("missing or changed: %s %s", sd, rest)
			}
		})
	}
}
