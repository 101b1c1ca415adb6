/**
 * Blocks and models on this machine: the store interface, the store in files and the store in memory, and the slots
 * that blocks travel in.
 */
export { createFileStore, type FileStoreInit } from './file-store.ts'
export { awayOf, localFiles, type LocalFile } from './local-files.ts'
export { createMemoryStore, type MemoryStoreInit } from './memory-store.ts'
export { blockAt } from './records.ts'
export { SlotPool, type Slot } from './slots.ts'
export type { StoreSettings } from './core.ts'
export type * from './store.ts'
