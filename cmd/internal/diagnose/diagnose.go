// Package diagnose is what every command that diagnoses needs: the catalogue, the options of an engine, and captures as one input.
package diagnose

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/analyze/flow"
	"jindan/capture"
	"jindan/capture/recording"
	"jindan/cmd/internal/cli"
	"jindan/rules"
)

// Catalogue loads the rules, with a user's own directory over them if there is one.
func Catalogue(dir string) (*rules.Set, error) {
	var over []rules.Override
	if dir != "" {
		if st, err := os.Stat(dir); err != nil {
			return nil, err
		} else if !st.IsDir() {
			return nil, fmt.Errorf("%s: is no directory; --rules wants one that holds *.yaml files", dir)
		}
		over = append(over, rules.Override{Name: dir, FS: os.DirFS(dir)})
	}
	return rules.Load(detect.Features(), over...)
}

// Run is Watched without anybody who looks on.
func Run(ctx context.Context, in *Input, set *rules.Set, local []netip.Prefix, emit func(*analyze.Finding) error) (d *analyze.Diagnosis, inErr, err error) {
	return Watched(ctx, in, set, local, nil, emit)
}

// Watched reads in to its end, or to the end of ctx, and diagnoses what it got. The findings go
// to emit as they come; watch, if there is one, looks on. The second error is what was wrong with the input: the diagnosis is there in
// spite of it.
func Watched(ctx context.Context, in *Input, set *rules.Set, local []netip.Prefix, watch analyze.Watcher,
	emit func(*analyze.Finding) error) (d *analyze.Diagnosis, inErr, err error) {
	o := analyze.Options{Sources: in.Names, Agent: "jindan/" + cli.Version}
	if m, ok := in.Meta(); ok {
		if o, err = EngineOptions(m); err != nil {
			return nil, nil, err
		}
	}
	o.Points = in.Points
	if local != nil {
		o.Local = local
	} else if in.Points != nil {
		for _, a := range in.Points.Proxies() {
			ip := a.Netip()
			o.Local, o.LocalBy = append(o.Local, netip.PrefixFrom(ip, ip.BitLen())), analyze.LocalByPoints
		}
	}
	o.Causes, o.Watch = cause.New(set), watch
	if runtime.GOMAXPROCS(0) > 1 {
		o.Beside = new(sync.WaitGroup)
	}
	e, err := analyze.New(set, detect.All(), o, emit)
	if err != nil {
		return nil, nil, err
	}
	var failed error
	observe := func(b *capture.Batch) error {
		failed = e.Observe(b)
		return failed
	}
	if _, ok := in.Meta(); ok { // a recording is replayed as it was seen
		inErr = in.Read(ctx, observe)
	} else {
		s := capture.NewSorter(observe)
		if inErr = in.Read(ctx, s.Observe); failed == nil {
			_ = s.Close() // observe keeps its error
		}
	}
	if failed != nil {
		return nil, nil, failed
	}
	d, err = e.Close()
	return d, inErr, err
}

// retain is how long the agent remembers a finding that is over: an outage is looked into on the next day.
const retain = 24 * time.Hour

// EngineOptions are those of the agent that made a recording: with them its replay gives the same records.
func EngineOptions(m recording.Meta) (analyze.Options, error) {
	local, err := Hosts(Words(m.Local))
	if err != nil {
		return analyze.Options{}, err
	}
	return analyze.Options{Local: local, Sources: m.Sources, Host: m.Host, Agent: m.Agent, Netns: m.Netns, Retain: retain,
		Flow: flow.Options{MaxConns: m.MaxConns, MaxPaths: m.MaxPaths}}, nil
}
