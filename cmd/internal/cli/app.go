// Package cli is what all commands share: their log, exit codes, terminal and standard output.
package cli

import (
	"context"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Version is set by the build: -ldflags "-X jindan/cmd/internal/cli.Version=1.2.3".
var Version = "dev"

// App is what the commands share.
type App struct {
	Log zerolog.Logger
	// Interrupted is the exit code for the signal that came; 0: none did.
	Interrupted atomic.Int32
	// OverLine: a line without an end stands on the terminal that the log goes to, too.
	OverLine atomic.Bool
	// flags of all commands
	Lang      string
	Color     string
	LogFormat string
}

// FailEach tells each of several joined errors on a line of its own.
func (a *App) FailEach(err error) error {
	es := SplitErrors(err)
	for _, e := range es[:len(es)-1] {
		a.Log.Error().Msg(OneLine(e))
	}
	return es[len(es)-1]
}

// endWithin is how long a command may take to end after a signal, whatever it is at.
const endWithin = 4800 * time.Millisecond

// EndWithin ends the process some time after a signal, unless what it returns is called before: what runs by then does not
// heed ctx, and a goroutine cannot be ended.
func (a *App) EndWithin(ctx context.Context) (ended func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		select {
		case <-done:
		case <-time.After(endWithin):
			if code := a.Interrupted.Load(); code != 0 {
				os.Exit(int(code))
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// LogAside lets the log wait for nobody, until what it returns is called.
func (a *App) LogAside() (back func()) {
	before, o := a.Log, NewOutlet(os.Stderr)
	a.Log = newLogTo(overLine{o, &a.OverLine}, a.LogFormat, a.WantColor(os.Stderr))
	return func() {
		o.Flush(flushLog)
		a.Log = before
	}
}

// overLine writes in the place of the line that shows that the agent lives, while there is one.
type overLine struct {
	w     io.Writer
	there *atomic.Bool
}

func (o overLine) Write(p []byte) (int, error) {
	if o.there.Load() {
		_, err := o.w.Write(append([]byte("\r\x1b[K"), p...))
		return len(p), err
	}
	return o.w.Write(p)
}

// flushLog is how long the reader of the log has for the rest.
const flushLog = 200 * time.Millisecond

// lateHeap is the percentage (GOGC) at which the first collection comes at 16 MB of heap, for the runtime's least is 4 MB times that.
const lateHeap = 400

// LateHeap puts off the first collection of garbage: what a command makes at its start stays. From then on it goes on as the
// runtime does by itself, unless the environment (GOGC) says otherwise.
func LateHeap() {
	usual := debug.SetGCPercent(lateHeap)
	if usual != 100 {
		debug.SetGCPercent(usual)
		return
	}
	first := &struct{ self any }{} // pointers keep it out of a block that it would share
	runtime.AddCleanup(first, func(n int) { debug.SetGCPercent(n) }, usual)
}

// LimitHeap makes the runtime collect garbage sooner when the heap comes near to n bytes, unless the environment (GOMEMLIMIT)
// allows it less.
func LimitHeap(n int64) {
	if debug.SetMemoryLimit(-1) > n {
		debug.SetMemoryLimit(n)
	}
}
