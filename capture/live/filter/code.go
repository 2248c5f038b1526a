package filter

import (
	"slices"

	"golang.org/x/net/bpf"
)

// operator is what a cond does.
type operator uint8

const (
	opConst operator = iota
	opTest
	opNot
	opAnd
	opOr
	opChoose
)

// cond is a node of a decision. It is evaluated from left to right, and no further than needed.
type cond struct {
	op      operator
	a, b, c *cond

	value bool // opConst

	load []bpf.Instruction // opTest: brings the value compared into A
	test bpf.JumpTest
	with uint32
}

var (
	yes = &cond{op: opConst, value: true}
	no  = &cond{op: opConst}
)

func not(a *cond) *cond {
	switch a.op {
	case opConst:
		if a.value {
			return no
		}
		return yes
	case opNot:
		return a.a
	}
	return &cond{op: opNot, a: a}
}

func and(a, b *cond) *cond {
	switch {
	case a == yes:
		return b
	case b == yes || a == no:
		return a
	}
	return &cond{op: opAnd, a: a, b: b}
}

func or(a, b *cond) *cond {
	switch {
	case a == no:
		return b
	case b == no || a == yes:
		return a
	}
	return &cond{op: opOr, a: a, b: b}
}

// choose is b where a holds, and c elsewhere.
func choose(a, b, c *cond) *cond {
	switch {
	case a == yes || b == c:
		return b
	case a == no:
		return c
	}
	return &cond{op: opChoose, a: a, b: b, c: c}
}

// extension compares what the kernel knows of a packet, under a mask.
func extension(e bpf.Extension, mask uint32, test bpf.JumpTest, with uint32) *cond {
	return masked(mask, test, with, bpf.LoadExtension{Num: e})
}

// assembler writes a program from its end, so that the target of every jump is known. A label is the number
// of instructions after the target.
type assembler struct {
	back []bpf.Instruction // the last one first
}

// maxSkip is how far a conditional jump reaches (255 instructions), less the two that may be put between.
const maxSkip = 255 - 2

func (a *assembler) emit(i bpf.Instruction) int {
	a.back = append(a.back, i)
	return len(a.back) - 1
}

func (a *assembler) skip(to int) int { return len(a.back) - to - 1 }

// near returns a label within reach that leads to label to.
func (a *assembler) near(to int) int {
	if a.skip(to) <= maxSkip {
		return to
	}
	return a.emit(bpf.Jump{Skip: uint32(a.skip(to))})
}

// gen writes code that goes on at label t if c holds and at f if not, and returns the label of its start.
func (a *assembler) gen(c *cond, t, f int) int {
	if len(a.back) > MaxLength {
		return len(a.back) - 1 // too long already
	}
	switch c.op {
	case opConst:
		if c.value {
			return t
		}
		return f
	case opNot:
		return a.gen(c.a, f, t)
	case opAnd:
		return a.gen(c.a, a.gen(c.b, t, f), f)
	case opOr:
		return a.gen(c.a, t, a.gen(c.b, t, f))
	case opChoose:
		second := a.gen(c.c, t, f)
		return a.gen(c.a, a.gen(c.b, t, f), second)
	}
	t = a.near(t)
	f = a.near(f)
	start := a.emit(bpf.JumpIf{Cond: c.test, Val: c.with, SkipTrue: uint8(a.skip(t)), SkipFalse: uint8(a.skip(f))})
	for _, i := range slices.Backward(c.load) {
		start = a.emit(i)
	}
	return start
}

// program ends the writing with a program that begins at label start.
func (a *assembler) program(start int) ([]bpf.RawInstruction, error) {
	if a.skip(start) > 0 {
		a.emit(bpf.Jump{Skip: uint32(a.skip(start))})
	}
	forward := slices.Clone(a.back)
	slices.Reverse(forward)
	return bpf.Assemble(forward)
}
