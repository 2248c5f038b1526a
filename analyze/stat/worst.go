package stat

// Worst is what was counted of the subject with the largest share of failures, or of all, where none failed.
type Worst struct {
	bad, total int
	all        int
	share      float64
}

// Add takes a subject. Failures of few are more than failures of none, whatever the share.
func (x *Worst) Add(bad, total int) {
	x.all += total
	if s := Ratio(bad, total); bad > 0 && s > x.share {
		x.bad, x.total, x.share = bad, total, s
	}
}

// Of returns the numbers of the worst subject.
func (x *Worst) Of() (bad, total int) {
	if x.bad > 0 {
		return x.bad, x.total
	}
	return 0, x.all
}
