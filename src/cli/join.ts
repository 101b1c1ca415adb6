import { join } from 'node:path'
import { ConfigError, DiskError, InvalidInviteError, asError, makeDirectories, systemCode } from '../base/index.ts'
import { decodeInvite } from '../discovery/invite.ts'
import { readOrCreateSecret } from '../discovery/secret-file.ts'
import { formatSwarmKey, parseSwarmKey } from '../discovery/swarm-key.ts'
import { isMultiaddr } from './config-values.ts'

/** src/discovery/invite.ts */
const INVITE_START = /^\s*shoal1/i

export interface JoinPlan {
  /** Who to dial. */
  addresses: string[]
  /** The swarm's key, when an invite brought it. */
  swarmKey: Uint8Array | undefined
}

/**
 * What invites and plain addresses say together. Throws InvalidInviteError, and ConfigError when they are of different
 * swarms or do not fit `openSwarm`.
 */
export function planJoin (entries: readonly string[], openSwarm: boolean): JoinPlan {
  const plan: JoinPlan = { addresses: [], swarmKey: undefined }
  for (const entry of entries) {
    if (entry.startsWith('/')) {
      if (!isMultiaddr(entry)) throw new ConfigError(`${JSON.stringify(entry)} is neither a multiaddr nor an invite; get an invite with: shoal invite`)
      plan.addresses.push(entry)
      continue
    }
    // Not told: it may be an invite that lacks its first letters, and so be as secret as one.
    if (!INVITE_START.test(entry)) throw new InvalidInviteError('what is to be joined is neither an invite, which begins with "shoal1" (get one with: shoal invite), nor a multiaddr such as /ip4/10.0.0.1/tcp/4108/p2p/PEER')
    const { addresses, swarmKey } = decodeInvite(entry)
    if (swarmKey !== undefined && openSwarm) throw new ConfigError('the invite is for a private swarm; leave network.openSwarm false to join it')
    if (swarmKey === undefined && !openSwarm) throw new ConfigError('the invite is for an open swarm, which anybody can join; set network.openSwarm to true if that is meant')
    if (swarmKey !== undefined && plan.swarmKey !== undefined && !same(swarmKey, plan.swarmKey)) throw new ConfigError('the invites are for different swarms; a node is in one')
    plan.swarmKey = swarmKey ?? plan.swarmKey
    plan.addresses.push(...addresses)
  }
  return { ...plan, addresses: [...new Set(plan.addresses)] }
}

/**
 * Keeps an invite's swarm key in the data directory, where the node finds it at this start and the next ones. Throws
 * ConfigError when the directory has another: a node that changed swarms would lose all who know it.
 */
export async function keepSwarmKey (directory: string, key: Uint8Array): Promise<void> {
  await makeDataDirectory(directory)
  const path = join(directory, 'swarm.key')
  const held = await readOrCreateSecret(path, () => Buffer.from(formatSwarmKey(key)))
  if (!same(parseSwarmKey(Buffer.from(held).toString('latin1'), path), key)) {
    throw new ConfigError(`${path} holds the key of another swarm than the invite; use another --data, or delete that file to leave the old swarm`)
  }
}

/** For this user only: it holds keys. Throws DiskError. */
export async function makeDataDirectory (directory: string): Promise<void> {
  await makeDirectories(directory, { mode: 0o700 }).catch(error => {
    const code = systemCode(error)
    const { path = directory } = error as NodeJS.ErrnoException
    const why = code === 'EEXIST' || code === 'ENOTDIR' ? `${path} is there and is no directory` : code === 'EACCES' ? `this user may not make ${path}` : asError(error).message
    throw new DiskError(`cannot make the data directory ${directory}: ${why}; give another --data directory`, { cause: error })
  })
}

function same (a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
