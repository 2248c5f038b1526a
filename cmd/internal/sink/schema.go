package sink

import "embed"

// The schemas are made of the structs and their comments: `go test ./cmd/internal/sink -run TestSchemas -update`.
//
//go:embed schema/*.json
var schemas embed.FS

// Kinds of record in the order in which they are explained.
var Kinds = []Kind{KindFinding, KindDiagnosis, KindHeartbeat, KindNotice}

// Schema is the JSON Schema (draft 2020-12) of the records of a kind, as the
// encoding native writes them.
func Schema(k Kind) ([]byte, error) { return schemas.ReadFile("schema/" + string(k) + ".v1.json") }
