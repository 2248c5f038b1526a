package flow

import "slices"

// sided counts the connections of a listener that had come about, and those of them of which one side only was seen.
type sided struct{ conns, oneWay uint32 }

const (
	// minOneWay is how many connections of a listener must lack a side before its packets count as taking another way: one or two
	// had their last packet as the capture began.
	minOneWay = 3
	// oneWayPart is of how many connections of a listener one must lack a side: with half of them and more an asymmetric route
	// is behind it; a tenth leaves room for equal-cost paths of which the capture point sees some.
	oneWayPart = 10
)

// count adds c to the counts of its listener.
func count(of []sided, c *Conn) []sided {
	if !c.IsEstablished() {
		return of
	}
	for int(c.service) >= len(of) {
		of = append(of, sided{})
	}
	of[c.service].conns++
	if c.OneWay() {
		of[c.service].oneWay++
	}
	return of
}

// OneSided is how many connections belong to listeners from which, or to which, the capture lacks packets by the connection. What that
// side did, or did not do, nobody knows.
func (t *Table) OneSided() (n uint32) {
	of := slices.Clone(t.sided)
	t.Live(func(c *Conn) { of = count(of, c) })
	for _, s := range of {
		if s.oneWay >= minOneWay && s.oneWay*oneWayPart >= s.conns {
			n += s.oneWay
		}
	}
	return n
}
