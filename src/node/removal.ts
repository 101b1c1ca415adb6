import type { ModelStore, RemoveResult, StoredModel } from '../storage/store.ts'
import type { Announcer } from './announcer.ts'
import type { Loads } from './load.ts'

export interface RemovalComponents { store: ModelStore, announcer: Announcer, loads: Loads }

/** Told last when it came, told first when it goes; if the store refuses, it is announced again. Throws what the store throws. */
export async function removeModel ({ store, announcer, loads }: RemovalComponents, model: StoredModel, options: { onlyCached?: boolean } = {}): Promise<RemoveResult> {
  await loads.settled(model.cid)
  announcer.withdraw(model)
  try {
    return await store.removeModel(model.cid, options)
  } catch (error) {
    announcer.model(model)
    announcer.files(model)
    throw error
  }
}
