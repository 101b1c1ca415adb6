/**
 * The Hub of hub.ts as a process, for tests in other languages: `node hub-process.ts '[{"repo": "a/b", "directory": "...", "gated": true,
 * "tokens": ["..."]}]'` prints `{"url": ..., "commits": [...]}`; each line on its standard input is answered with what it has seen so far,
 * and it goes with the end of that input.
 */
import { readFile, readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { Hub } from './hub.ts'

interface Given { repo: string, directory: string, gated?: boolean, isPrivate?: boolean, tokens?: string[] }

const hub = await Hub.start()
const commits: string[] = []
for (const { repo, directory, ...options } of JSON.parse(process.argv[2] ?? '[]') as Given[]) {
  const files: Record<string, Buffer> = {}
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile()) files[relative(directory, path)] = await readFile(path)
  }
  commits.push(hub.push(repo, files, options))
}
process.stdout.write(`${JSON.stringify({ url: hub.url, commits })}\n`)
for await (const _ of createInterface(process.stdin)) {
  process.stdout.write(`${JSON.stringify({ fileBytes: hub.fileBytes, bytes: hub.bytes, asked: hub.asked, leaked: hub.leaked, tokens: [...hub.tokensSeen] })}\n`)
}
await hub.stop()
