package analyze

// Handfuls makes the engine hand over n events at a time.
func (e *Engine) Handfuls(n int) {
	e.handover.filling, e.handover.delivering = make([]kept, 0, n), make([]kept, 0, n)
}
