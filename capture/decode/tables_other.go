//go:build !linux

package decode

import "unsafe"

// drop keeps the memory: the tables take it on Linux as well if madvise fails.
func drop(unsafe.Pointer, uintptr) {}
