/**
 * An endpoint that Hugging Face clients take for the Hub: set HF_ENDPOINT to it. `server.ts` listens and guards, `address.ts`
 * reads what is asked, `repos.ts` finds which model that is, `routes.ts` answers, `stream.ts` sends bytes as they are
 * verified. docs/decisions/0008-hugging-face.md says why it answers as it does.
 */
export { createHfServer, type HfServer, type HfServerInit } from './server.ts'
