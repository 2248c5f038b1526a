package config

import (
	"path/filepath"
	"reflect"
)

// Paths are the absolute paths of files and directories that c names, whether they are read or written.
func (c *Config) Paths() (paths []string) {
	var walk func(v reflect.Value, is string)
	walk = func(v reflect.Value, is string) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem(), is)
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i), is)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					walk(v.Field(i), f.Tag.Get("is"))
				}
			}
		case reflect.String:
			if p := v.String(); (is == "path" || is == "dir") && filepath.IsAbs(p) {
				paths = append(paths, p)
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return paths
}
