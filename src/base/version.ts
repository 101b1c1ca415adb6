import { readFileSync } from 'node:fs'
import { isRecord } from './is-record.ts'

/** Of this package, from its own description, which is two directories up from src/base, dist/base and a bundle alike. */
export function packageVersion (): string {
  const description: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  if (!isRecord(description) || typeof description.version !== 'string') throw new Error('package.json tells no version')
  return description.version
}
