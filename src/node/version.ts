import { packageVersion } from '../base/version.ts'

/** The version of this package. */
export const version = packageVersion()
