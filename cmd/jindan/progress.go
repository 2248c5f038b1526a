package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
)

// progress shows on standard error, if that is a terminal, how far the reading is, once it has
// taken a second.
type progress struct {
	in   *diagnose.Input
	end  chan struct{}
	wait sync.WaitGroup
	once sync.Once
}

func startProgress(in *diagnose.Input) *progress {
	p := &progress{in: in, end: make(chan struct{})}
	if cli.IsTerminal(os.Stderr) {
		p.wait.Go(p.run)
	}
	return p
}

func (p *progress) run() {
	const clear = "\r\x1b[K"
	begin := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.end:
			if shown {
				fmt.Fprint(os.Stderr, clear)
			}
			return
		case <-tick.C:
			if took := time.Since(begin); took >= time.Second {
				shown = true
				fmt.Fprint(os.Stderr, clear+p.line(took))
			}
		}
	}
}

// line says how much has been read, and, where the sizes are known, how long the rest will take.
func (p *progress) line(took time.Duration) string {
	var read, size int64
	known := true
	for _, f := range p.in.Files {
		r, s := f.Progress()
		read, size = read+r, size+s
		known = known && s > 0
	}
	mb := float64(read) / 1e6
	if !known || read == 0 || size == 0 {
		return fmt.Sprintf("read %.0f MB, %.0f MB/s", mb, mb/took.Seconds())
	}
	const width = 24
	share := min(float64(read)/float64(size), 1)
	bar := make([]byte, width)
	for i := range bar {
		bar[i] = '.'
		if float64(i) < share*width {
			bar[i] = '#'
		}
	}
	left := time.Duration(float64(took) * (1 - share) / share).Round(time.Second)
	return fmt.Sprintf("[%s] %3.0f %%  %.0f of %.0f MB, %.0f MB/s, %v left", bar, share*100, mb, float64(size)/1e6, mb/took.Seconds(), left)
}

// stop ends the display and clears its line.
func (p *progress) stop() {
	p.once.Do(func() { close(p.end) })
	p.wait.Wait()
}
