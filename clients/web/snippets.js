// The page's comparison as code.
//
// Each takes `url`, of the page; `file`, the picture's name; `options`, of the request, as in
// JSON; and `needsToken`, true if a token is read from the environment.

const GRPC_PORT = 8001; // the server's default; the page can't know another one
const TASK_NAMES = { TASK_CLASSIFICATION: "classification", TASK_OBJECT_DETECTION: "detection" };
const GO_TASKS = {
  TASK_CLASSIFICATION: "TaskClassification",
  TASK_OBJECT_DETECTION: "TaskDetection",
};

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
  const names = {
    tasks: (tasks) => `Tasks(${tasks.map((task) => `visavis.${GO_TASKS[task]}`).join(", ")})`,
    models: (models) => `Models(${models.map(json).join(", ")})`,
    topK: (k) => `TopK(${k})`,
    scoreThreshold: (threshold) => `ScoreThreshold(${threshold})`,
    iouThreshold: (threshold) => `IoUThreshold(${threshold})`,
    explain: () => "Explain()",
  };
  const args = [
    "context.Background()",
    `visavis.File(${json(file)})`,
    ...Object.entries(options).map(([name, value]) => `visavis.${names[name](value)}`),
  ];
  const client = [
    json(grpcAddress(url)),
    ...(new URL(url).protocol === "https:" ? ["visavis.WithTLS(nil)"] : []),
    ...(needsToken ? ['visavis.WithToken(os.Getenv("VISAVIS_TOKEN"))'] : []),
  ];
  return `\
package main

import (
	"context"
	"fmt"
	"log"
${needsToken ? '\t"os"\n' : ""}
	"visavis.internal/visavis" // clients/go
)

func main() {
	client, err := visavis.New(${client.join(", ")})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	comparison, err := client.Compare(
		${args.join(",\n\t\t")},
	)
	if err != nil {
		log.Fatal(err)
	}
	for _, task := range comparison.Tasks {
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
