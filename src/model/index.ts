/**
 * The formats: blocks and their CIDs, manifests, file indexes, shards, where files are cut, and the safetensors header.
 * Pure: nothing here touches disk or network.
 */
export * from './block.ts'
export * from './chunkers.ts'
export * from './cid-list.ts'
export * from './file-index.ts'
export * from './git-blob.ts'
export * from './manifest.ts'
export * from './path.ts'
export * from './printable.ts'
export * from './repo-name.ts'
export * from './safetensors.ts'
export * from './shards.ts'
export * from './types.ts'
