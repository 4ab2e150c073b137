// The page starts with a workflow of nodes that this server does not have. Here it starts with one that runs.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const TEMPLATE = "/workflow_templates/Kintsugi/restore_photo.json";

app.registerExtension({
  name: "Kintsugi.FirstWorkflow",
  async init() {
    const builtIn = window.comfyAPI?.defaultGraph?.defaultGraph;
    const answer = await api.fetchApi(TEMPLATE);
    if (!builtIn || !answer.ok) return;
    for (const key of Object.keys(builtIn)) delete builtIn[key];
    Object.assign(builtIn, await answer.json());
  },
});
