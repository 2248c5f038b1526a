package sink

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// TestIntegrationAlertmanager posts to Debian's Alertmanager and asks it what it holds.
func TestIntegrationAlertmanager(t *testing.T) {
	path, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		if path, err = exec.LookPath("alertmanager"); err != nil {
			t.Skip("alertmanager is not installed: apt-get install prometheus-alertmanager")
		}
	}
	dir := t.TempDir()
	l := listen(t)
	addr := l.Addr().String()
	l.Close()
	if err := exec.Command("sh", "-c", `printf 'route: {receiver: x}\nreceivers: [{name: x}]\n' > "$0"`, dir+"/c.yml").Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config.file="+dir+"/c.yml", "--storage.path="+dir, "--web.listen-address="+addr, "--cluster.listen-address=")
	var log bytes.Buffer
	cmd.Stderr = &log
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
	alerts := func() (m map[string]string) { // finding -> severity of the active ones
		p, err := http.Get("http://" + addr + "/api/v2/alerts?active=true")
		if err != nil {
			return nil
		}
		defer p.Body.Close()
		var list []struct {
			Labels map[string]string
			Status struct{ State string }
			EndsAt time.Time
		}
		if json.NewDecoder(p.Body).Decode(&list) != nil {
			return nil
		}
		m = map[string]string{}
		for _, a := range list {
			if a.EndsAt.After(time.Now()) {
				m[a.Labels["finding"]] = a.Labels["severity"]
			}
		}
		return m
	}
	k := must(t)(NewAlertmanager(AlertmanagerOptions{Address: "http://" + addr, Every: 300 * time.Millisecond}))
	s, r := deliver(t, Output{Sink: k})
	now := func(n int, st analyze.State, sev string) Record { // Alertmanager lives in the present
		f := aFinding(n, st, sev)
		d := time.Now().UnixNano() - int64(f.Time)
		f.Time, f.Onset = f.Time.Add(time.Duration(d)), f.Onset.Add(time.Duration(d))
		rec, err := FindingRecord(f)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	one, two := now(1, analyze.Open, "warn"), now(2, analyze.Open, "error")
	put(t, s, one, two, Record{Kind: KindHeartbeat, ID: "heartbeat", Severity: "info", Body: json.RawMessage(`{}`)})
	eventually(t, "both are active", func() bool { m := alerts(); return len(m) == 2 && m[one.ID] == "warn" && m[two.ID] == "error" })
	time.Sleep(2 * time.Second) // longer than four intervals: without being posted again they would end
	if m := alerts(); len(m) != 2 {
		t.Errorf("open alerts ended: %v", m)
	}
	put(t, s, now(1, analyze.Update, "error"), now(2, analyze.Resolved, "error"))
	eventually(t, "one grew worse, the other is over", func() bool { m := alerts(); return len(m) == 1 && m[one.ID] == "error" })
	eventually(t, "all five are counted as sent", func() bool { st := r.Status(); return st.Rejected == 0 && st.Sent == 5 })
	put(t, s, now(1, analyze.Resolved, "error"))
	eventually(t, "nothing is active", func() bool { return len(alerts()) == 0 })

	// The incident, as if it were now: while it lasts, and when it is over.
	active := map[string]string{}
	var during, after []Record
	sinktest.Feed(t, func(f *analyze.Finding) error {
		x := *f
		d := time.Duration(time.Now().UnixNano() - int64(x.Time))
		x.Time, x.Onset = x.Time.Add(d), x.Onset.Add(d)
		rec, err := FindingRecord(&x)
		if x.State == analyze.Resolved || len(after) > 0 {
			after = append(after, rec)
			return err
		}
		during = append(during, rec)
		active[x.ID] = x.Severity
		return err
	})
	put(t, s, during...)
	eventually(t, "every finding is an alert of its severity", func() bool { return maps.Equal(alerts(), active) })
	put(t, s, after...)
	eventually(t, "the cause is over", func() bool {
		m := alerts()
		for id := range m {
			if strings.HasPrefix(id, "size-dependent-loss") {
				return false
			}
		}
		return true
	})
}
