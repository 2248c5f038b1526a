//go:build linux && race

package privsep

// Confine does nothing under the race detector, whose C library Landlock's threads do not go with.
func Confine(_, _ []string) (bool, error) { return false, nil }
