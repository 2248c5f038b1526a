package detect

import (
	"testing"
	"time"

	"jindan/analyze/measure"
	"jindan/capture"
)

// A process is stopped if all its threads are, and if that is known.
func TestStopped(t *testing.T) {
	waits := func(state string, n int32) capture.ThreadWait { return capture.ThreadWait{State: state, Threads: n} }
	for _, tc := range []struct {
		threads int32
		waits   []capture.ThreadWait
		want    string
	}{
		{25, []capture.ThreadWait{waits("T", 24), waits("T", 1)}, "T"},
		{25, []capture.ThreadWait{waits("t", 25)}, "t"},
		{25, []capture.ThreadWait{waits("T", 24), waits("S", 1)}, ""},
		{25, []capture.ThreadWait{waits("T", 24)}, ""}, // of one it is not known
		{25, []capture.ThreadWait{waits("S", 25)}, ""},
		{0, nil, ""},
	} {
		if got := measure.Stopped(&capture.Process{Threads: tc.threads, Waits: tc.waits}); got != tc.want {
			t.Errorf("%v of %d threads: %q", tc.waits, tc.threads, got)
		}
	}
}

// Who asks a service that answers nobody is told which program does not go on, if all its threads are stopped.
func TestStoppedIsNamed(t *testing.T) {
	program := func(state string) func(*network) {
		return func(n *network) {
			every(0, 60*sec, 100*ms, func(at time.Duration, i int) {
				if at < 30*sec {
					n.call(at, healClient(i), healSrv, 5*ms)
				} else {
					n.hung(at, healClient(i), healSrv, 3*sec)
				}
			})
			every(0, 60*sec, sec, func(at time.Duration, _ int) { n.sockets(at, gateStates, listener(healSrv, 0, 64)) })
			every(35*sec, 60*sec, 5*sec, func(at time.Duration, _ int) {
				n.sample(at, capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{PID: 812, Name: "verifyd", Threads: 3, Inodes: []uint32{7},
					Waits: []capture.ThreadWait{{Threads: 3, State: state}}}}}})
			})
		}
	}
	named := func(want string) func(*testing.T, any) {
		return func(t *testing.T, f any) {
			if got := f.(SlowServer).State; got != want {
				t.Errorf("state %q, want %q", got, want)
			}
		}
	}
	play(t, newSlowServer, []scene{
		{name: "stopped", make: program("T"), local: healApp, want: "error service 192.0.2.1 8080", onset: 30*sec + 2*ms, check: named("T")},
		{name: "asleep", make: program("S"), local: healApp, want: "error service 192.0.2.1 8080", onset: 30*sec + 2*ms, check: named("")},
	})
}
