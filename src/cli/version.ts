import { readFileSync } from 'node:fs'

/** From the package's own description, two directories up from src/cli and from dist/program alike. */
export function version (): string {
  const description = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version?: unknown }
  return String(description.version)
}
