// Calls the five published operations with the functions that hey-api made.
import { client } from "./hey/client.gen";
import {
  postCallsIngest,
  postCallsVoiceAiConfig,
  postWebhookElevenlabsToolsCreateNote,
  postWebhookElevenlabsToolsSendSms,
  postWebhookElevenlabsToolsTransfer,
} from "./hey/sdk.gen";

const { RELAY_URL, RELAY_JWT, RELAY_API_KEY, RELAY_TOOL_SECRET } = process.env as Record<string, string>;

async function main(): Promise<void> {
  client.setConfig({ baseUrl: RELAY_URL });
  const tool = { auth: RELAY_TOOL_SECRET };
  const call = await postCallsIngest({
    auth: RELAY_API_KEY,
    body: {
      direction: "outbound",
      fromNumber: "+12362320246",
      toNumber: "+14165550100",
      duration: 0,
      status: "no-answer",
      callStartTime: "2026-05-15T09:10:00.000Z",
    },
  });
  const note = await postWebhookElevenlabsToolsCreateNote({
    ...tool,
    body: { phone_number: "+14165550100", note: "From hey-api." },
  });
  const text = await postWebhookElevenlabsToolsSendSms({
    ...tool,
    body: { phone_number: "+14165550100", message: "From hey-api." },
  });
  const transfer = await postWebhookElevenlabsToolsTransfer({ ...tool, body: { reason: "A person, please" } });
  const saved = await postCallsVoiceAiConfig({ auth: RELAY_JWT, body: { aiVoiceProvider: null } });
  const callId: string | undefined = call.data?.callId;
  const noteId: string | undefined = note.data?.note_id;
  const answers = [call, note, text, transfer, saved].map(({ response }) => response?.status);
  console.log(JSON.stringify({ answers, callId, noteId, texted: text.data?.success, saved: saved.data?.message }));
}

// What does not fit the page does not compile. It is never run.
export async function refused(): Promise<void> {
  // @ts-expect-error
  await postCallsIngest({ body: 42 });
  // @ts-expect-error
  await postCallsIngest({ body: { direction: "inbound" } });
  // @ts-expect-error
  await postCallsVoiceAiConfig({ body: { generateToolSecret: "yes" } });
  // @ts-expect-error
  await postWebhookElevenlabsToolsCreateNote({ body: { phone_number: 42, note: "" } });
}

void main();
