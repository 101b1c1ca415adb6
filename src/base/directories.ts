import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { systemCode } from './errors.ts'

/**
 * Makes a directory and those above it that are missing, each with `mode`. One at a time: mkdir with `recursive` never
 * returns where the system says ENOENT to making a name in a directory that is there, as /proc does (Node 22 to 26).
 * Throws the system's error.
 */
export async function makeDirectories (path: string, { mode = 0o777 }: { mode?: number } = {}): Promise<void> {
  const missing: string[] = []
  let place = resolve(path)
  while (!await isDirectory(place)) {
    missing.push(place)
    if (place === dirname(place)) break
    place = dirname(place)
  }
  for (const directory of missing.reverse()) {
    try {
      await mkdir(directory, { mode })
    } catch (error) {
      if (systemCode(error) !== 'EEXIST' || !await isDirectory(directory)) throw error // else somebody was first
    }
  }
}

/** False when nothing is there, or something else, which mkdir will say. */
async function isDirectory (path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return false
    throw error
  }
}
