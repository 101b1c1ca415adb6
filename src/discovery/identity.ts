import { join } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { ConfigError } from '../base/index.ts'
import { readOrCreateSecret } from './secret-file.ts'

/**
 * The key a node is known by: DIR/identity.key (libp2p's protobuf, Ed25519), made at first start; a new one without a
 * directory. Throws ConfigError, DiskError.
 */
export async function loadIdentity (directory: string | undefined): Promise<PrivateKey> {
  if (directory === undefined) return await generateKeyPair('Ed25519')
  const path = join(directory, 'identity.key')
  const bytes = await readOrCreateSecret(path, async () => privateKeyToProtobuf(await generateKeyPair('Ed25519')))
  try {
    return privateKeyFromProtobuf(bytes)
  } catch (error) {
    throw new ConfigError(`${path} holds no private key; restore it from a backup, or delete it and the node becomes a new peer`, { cause: error })
  }
}
