package visavis_test

import (
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"strings"
	"testing"
)

func TestEveryExportedNameIsDocumented(t *testing.T) {
	isSource := func(info fs.FileInfo) bool { return !strings.HasSuffix(info.Name(), "_test.go") }
	packages, err := parser.ParseDir(token.NewFileSet(), ".", isSource, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	found := doc.New(packages["visavis"], "visavis.internal/visavis", 0)
	check := func(name, text string) {
		// The interfaces of these two say what they return.
		if text == "" && name != "Error" && name != "String" {
			t.Errorf("%s has no comment", name)
		}
	}
	values := func(groups ...[]*doc.Value) {
		for _, group := range groups {
			for _, value := range group {
				check(strings.Join(value.Names, ", "), value.Doc)
			}
		}
	}
	functions := func(groups ...[]*doc.Func) {
		for _, group := range groups {
			for _, function := range group {
				check(function.Name, function.Doc)
			}
		}
	}
	check("the package", found.Doc)
	values(found.Consts, found.Vars)
	functions(found.Funcs)
	for _, kind := range found.Types {
		check(kind.Name, kind.Doc)
		values(kind.Consts, kind.Vars)
		functions(kind.Funcs, kind.Methods)
	}
	if len(found.Types) < 20 {
		t.Errorf("only %d types were read", len(found.Types))
	}
}
