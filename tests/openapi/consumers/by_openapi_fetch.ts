// Calls the five published operations with the types that openapi-typescript made.
import createClient from "openapi-fetch";
import type { paths } from "./served";

const { RELAY_URL, RELAY_JWT, RELAY_API_KEY, RELAY_TOOL_SECRET } = process.env as Record<string, string>;
const as = (token: string) => createClient<paths>({ baseUrl: RELAY_URL, headers: { Authorization: `Bearer ${token}` } });

async function main(): Promise<void> {
  const [vendor, tools, admin] = [as(RELAY_API_KEY), as(RELAY_TOOL_SECRET), as(RELAY_JWT)];
  const call = await vendor.POST("/api/calls/ingest", {
    body: {
      direction: "inbound",
      fromNumber: "+14165550100",
      toNumber: "+12362320246",
      duration: 0,
      status: "busy",
      metadata: { campaign: "spring" },
    },
  });
  const note = await tools.POST("/api/webhook/elevenlabs/tools/create-note", {
    body: { phone_number: "+14165550100", note: "From a generated client." },
  });
  const text = await tools.POST("/api/webhook/elevenlabs/tools/send-sms", {
    body: { phone_number: "+14165550100", message: "From a generated client." },
  });
  const transfer = await tools.POST("/api/webhook/elevenlabs/tools/transfer", { body: { reason: "A person, please" } });
  const saved = await admin.POST("/api/calls/voice-ai/config", { body: { aiVoiceProvider: null } });
  const callId: string | undefined = call.data?.callId;
  const noteId: string | undefined = note.data?.note_id;
  const answers = [call, note, text, transfer, saved].map(({ response }) => response.status);
  console.log(JSON.stringify({ answers, callId, noteId, texted: text.data?.success, saved: saved.data?.message }));
}

// What does not fit the page does not compile. It is never run.
export async function refused(): Promise<void> {
  const vendor = as("");
  // @ts-expect-error
  await vendor.POST("/api/calls/ingest", { body: 42 });
  // @ts-expect-error
  await vendor.POST("/api/calls/ingest", { body: { direction: "inbound" } });
  // @ts-expect-error
  await vendor.POST("/api/calls/voice-ai/config", { body: { generateToolSecret: "yes" } });
  // @ts-expect-error
  await vendor.POST("/api/webhook/elevenlabs/tools/create-note", { body: { phone_number: 42, note: "" } });
  // @ts-expect-error
  await vendor.GET("/api/calls/history", { params: { query: { limit: 5 } } });
}

void main();
