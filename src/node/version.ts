import { readFileSync } from 'node:fs'
import { z } from 'zod'

// The package's own description is two directories up, from src/node and from dist/node alike.
const description: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

/** The version of this package. */
export const version = z.object({ version: z.string() }).parse(description).version
