import { join } from 'node:path'
import { ConfigError, type Random } from '../base/index.ts'
import { readOrCreateSecret } from './secret-file.ts'

export const SWARM_KEY_BYTES = 32

const HEADER = '/shoal/swarm-key/1'

/** As it stands in DIR/swarm.key: a header line, and the key as 64 hexadecimal digits. */
export function formatSwarmKey (key: Uint8Array): string {
  return `${HEADER}\n${Buffer.from(checkSwarmKey(key)).toString('hex')}\n`
}

/** Throws ConfigError, which names `source`. */
export function parseSwarmKey (text: string, source: string): Uint8Array {
  const match = /^(.*)\n([0-9a-f]{64})\n?$/.exec(text)
  if (match === null || match[1] !== HEADER) {
    throw new ConfigError(`${source} holds no swarm key; it has two lines, "${HEADER}" and 64 hexadecimal digits. Copy it from a node of the swarm, or delete it to begin a new swarm`)
  }
  return Uint8Array.from(Buffer.from(match[2] ?? '', 'hex'))
}

/** Throws ConfigError unless this can be a swarm key. */
export function checkSwarmKey (key: Uint8Array): Uint8Array {
  if (key.length !== SWARM_KEY_BYTES) throw new ConfigError(`a swarm key has ${SWARM_KEY_BYTES} bytes, not ${key.length}`)
  return key
}

/** The key in DIR/swarm.key (mode 0600), made at first start; without a directory a fresh one. Throws ConfigError, DiskError. */
export async function loadSwarmKey (directory: string | undefined, random: Random): Promise<Uint8Array> {
  if (directory === undefined) return random.bytes(SWARM_KEY_BYTES)
  const path = join(directory, 'swarm.key')
  const bytes = await readOrCreateSecret(path, () => Buffer.from(formatSwarmKey(random.bytes(SWARM_KEY_BYTES))))
  return parseSwarmKey(Buffer.from(bytes).toString('latin1'), path)
}
