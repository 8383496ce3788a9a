package main

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object with ordered keys: a key, its value, the next key, …
type object []any

func (o object) MarshalJSON() ([]byte, error) {
	text := bytes.NewBufferString("{")
	for i, part := range o {
		if i > 0 {
			text.WriteByte(",:"[i%2])
		}
		encoded, err := json.Marshal(part)
		if err != nil {
			return nil, err
		}
		text.Write(encoded)
	}
	text.WriteByte('}')
	return text.Bytes(), nil
}
