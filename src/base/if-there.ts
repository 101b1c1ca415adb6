import { systemCode } from './errors.ts'

/** Undefined when there is no such file. */
export async function ifThere<T> (work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}
