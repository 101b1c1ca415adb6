/** `npm run docs:cli` writes docs/CLI.md. */
import { writeFile } from 'node:fs/promises'
import { renderCliDocs } from './render.ts'

await writeFile(new URL('../../docs/CLI.md', import.meta.url), await renderCliDocs())
