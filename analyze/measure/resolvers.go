package measure

import (
	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
	"jindan/capture"
)

// ResolverKey is who asks whom for names.
type ResolverKey struct {
	Client capture.Addr
	Server capture.Endpoint
}

func resolverOf(d *flow.DNS) ResolverKey { return ResolverKey{d.Client.Addr, d.Server} }

// Subject is the resolver as its asker sees it.
func (k ResolverKey) Subject() analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectResolver, Host: k.Client.String(), Peer: k.Server.Addr.String(), Port: k.Server.Port}
}

// Tally is how the answers of a resolver fare.
type Tally struct {
	Series stat.Series // bad: what went wrong; total: all
	LastAt capture.Instant
	Total  int
	Bad    int // of these
}

// Quiet reports whether nothing is wrong, and whether the state is still needed. Where it is not, its share goes to gone.
func (t *Tally) Quiet(w *analyze.Window, gone *stat.Worst) (quiet, keep bool) {
	switch {
	case t.Series.Since.Bad > 0:
		return t.Series.Over(), true
	case w.End.Sub(t.LastAt) < IdleState:
		return true, true
	}
	gone.Add(t.Bad, t.Total)
	return true, false
}

// Resolvers are states by who asks whom for names.
type Resolvers[V any] struct{ numbered[ResolverKey, V] }

// NewResolvers returns a list without any.
func NewResolvers[V any]() Resolvers[V] {
	return Resolvers[V]{numbered[ResolverKey, V]{limit: MaxPerDetector}}
}

// Get returns the state for the asker and the server of d; nil if there are too many.
func (s *Resolvers[V]) Get(d *flow.DNS) *V {
	k := resolverOf(d)
	return s.numbered.Get(d.Resolver, &k)
}

// Of returns the state for the asker of l; nil if there are too many.
func (s *Resolvers[V]) Of(l *Lookup) *V { return s.numbered.Get(l.Resolver, &l.ResolverKey) }
