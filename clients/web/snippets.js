// The page's comparison as code.
//
// Each takes `url`, of the page; `file`, the picture's name; `options`, of the request, as in
// JSON; and `needsToken`, true if a token is read from the environment.

const GRPC_PORT = 8001; // the server's default; the page can't know another one
const TASK_NAMES = { TASK_CLASSIFICATION: "classification", TASK_OBJECT_DETECTION: "detection" };

export const LANGUAGES = { curl, Python: python, Go: go };

function curl({ url, file, options, needsToken }) {
  const fields = Object.entries(options).map(([name, value]) => `, "${name}": ${json(value)}`);
  const headers = ["'content-type: application/json'"];
  if (needsToken) headers.push('"authorization: Bearer $VISAVIS_TOKEN"');
  return `\
curl ${inShell(`${url}visavis.v1.VisionService/Compare`)} \\
${headers.map((header) => `  --header ${header} \\\n`).join("")}  --data-binary @- <<END
{"image": {"encoded": "$(base64 < ${inShell(file)} | tr -d '\\n')"}${inHeredoc(fields.join(""))}}
END
`;
}

function python({ url, file, options, needsToken }) {
  const { tasks, explain, ...others } = options;
  const named = tasks ? { tasks: tasks.map((task) => TASK_NAMES[task]), ...others } : others;
  if (explain) named.explain = true;
  const args = [
    json(file),
    ...Object.entries(named).map(([name, value]) => `${snakeCase(name)}=${value === true ? "True" : json(value)}`),
  ];
  const secure = new URL(url).protocol === "https:";
  const client = [
    json(grpcAddress(url)),
    ...(secure ? ["tls=TLS()"] : []),
    ...(needsToken ? ['token=os.environ["VISAVIS_TOKEN"]'] : []),
  ];
  return `\
${needsToken ? "import os\n\n" : ""}from visavis import ${secure ? "TLS, " : ""}Client

with Client(${client.join(", ")}) as client:
    comparison = client.compare(
        ${args.join(",\n        ")},
    )

for task in comparison.comparisons:
    for answer in task.answers:
        print(answer.served_by.model, answer.agreement)
        for found in answer.classifications + answer.detections:
            print(f"  {found.score:.3f} {found.label}")
`;
}

function go({ url, file, options, needsToken }) {
  const secure = new URL(url).protocol === "https:";
  const values = {
    tasks: (tasks) => `[]pb.Task{${tasks.map((task) => `pb.Task_${task}`).join(", ")}}`,
    models: (models) => `[]string{${models.map(json).join(", ")}}`,
    topK: (k) => `proto.Int32(${k})`,
    scoreThreshold: (threshold) => `proto.Float32(${threshold})`,
    iouThreshold: (threshold) => `proto.Float32(${threshold})`,
    explain: () => "&pb.Explain{}",
  };
  const fields = [
    ["Image", "&pb.Image{Source: &pb.Image_Encoded{Encoded: encoded}}"],
    ...Object.entries(options).map(([name, value]) => [
      `${name[0].toUpperCase()}${name.slice(1)}`,
      values[name](value),
    ]),
  ];
  // Aligned, as gofmt has it.
  const longest = Math.max(...fields.map(([name]) => name.length));
  const literal = fields.map(([name, value]) => `\t\t${`${name}:`.padEnd(longest + 2)}${value},\n`);
  const plain = ["tasks", "models", "explain"];
  const hasOptionals = Object.keys(options).some((name) => !plain.includes(name));
  const imports = [
    '"google.golang.org/grpc"',
    ...(secure ? ['"google.golang.org/grpc/credentials"'] : []),
    ...(needsToken ? ['"google.golang.org/grpc/metadata"'] : []),
    ...(hasOptionals ? ['"google.golang.org/protobuf/proto"'] : []),
  ];
  const security = secure
    ? "grpc.WithTransportCredentials(credentials.NewTLS(nil))"
    : "grpc.WithInsecure()";
  const token = needsToken
    ? '\ttoken := "Bearer " + os.Getenv("VISAVIS_TOKEN")\n' +
      '\tctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)\n'
    : "";
  return `\
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	${imports.join("\n\t")}

	pb "visavis/v1" // clients/go
)

func main() {
	encoded, err := os.ReadFile(${json(file)})
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.Dial(${json(grpcAddress(url))}, ${security})
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx := context.Background()
${token}	comparison, err := pb.NewVisionServiceClient(connection).Compare(ctx, &pb.CompareRequest{
${literal.join("")}	})
	if err != nil {
		log.Fatal(err)
	}
	for _, task := range comparison.Comparisons {
		for _, answer := range task.Answers {
			fmt.Println(answer.ServedBy.Model)
			for _, found := range answer.Classifications {
				fmt.Printf("  %.3f %s\\n", found.Score, found.Label)
			}
			for _, found := range answer.Detections {
				fmt.Printf("  %.3f %s\\n", found.Score, found.Label)
			}
		}
	}
}
`;
}

const json = (value) => JSON.stringify(value).replaceAll(",", ", ");

const snakeCase = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const grpcAddress = (url) => `${new URL(url).hostname}:${GRPC_PORT}`;

const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const inHeredoc = (text) => text.replace(/[\\$`]/g, "\\$&");
