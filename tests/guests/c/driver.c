// A component in C: it answers what can be read off layers/ (exists, list, metadata, status), and says of all else that it does not do it.
//
// `layerbox-guest-c` generates driver.h and the glue behind it from wit/; `.ci/guest-c` compiles this file against Debian's wasi-libc and links it into a
// component. What a record looks like and which errors are told is in wit/README.md.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

// The names that wit-bindgen makes are long; these are the ones that recur.
typedef exports_layerbox_driver_lifecycle_error_t error_t;
typedef exports_layerbox_driver_lifecycle_layer_t layer_t;
typedef exports_layerbox_driver_lifecycle_list_layer_id_t ids_t;

// The bounds of the contract (wit/README.md, "Records").
enum { MAX_ID = 128, MAX_RECORD = 1 << 20, MAX_ANCESTORS = 4096 };

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    // A component that gets no more memory traps, and the host says that a limit was reached.
    if (!memory) abort();
    return memory;
}

static driver_string_t copy(const uint8_t *bytes, size_t length) {
    driver_string_t text = {.ptr = allocate(length), .len = length};
    memcpy(text.ptr, bytes, length);
    return text;
}

static bool fail(error_t *error, uint8_t tag, driver_string_t text) {
    error->tag = tag;
    // Every case that is used here but `io` holds one string, and all of them lie at the same place.
    error->val.unsupported = text;
    return false;
}

static bool corrupt(error_t *error, const driver_string_t *id, const char *how) {
    size_t length = strlen(how);
    driver_string_t text = {.ptr = allocate(sizeof "layers/" + id->len + length), .len = 0};
    memcpy(text.ptr, "layers/", 7);
    memcpy(text.ptr + 7, id->ptr, id->len);
    memcpy(text.ptr + 7 + id->len, how, length);
    text.len = 7 + id->len + length;
    return fail(error, LAYERBOX_DRIVER_TYPES_ERROR_CORRUPT, text);
}

// The contract has Linux' error numbers, and WASI's are others.
static bool io(error_t *error, const char *operation) {
    static const struct { int wasi; uint32_t linux_number; } NUMBERS[] = {
        {ENOENT, 2}, {EACCES, 13}, {EPERM, 1}, {ENOTDIR, 20}, {EISDIR, 21}, {ENFILE, 23}, {EMFILE, 24}, {ELOOP, 40},
    };
    uint32_t number = 5;  // EIO
    for (size_t at = 0; at < sizeof NUMBERS / sizeof *NUMBERS; at++)
        if (NUMBERS[at].wasi == errno) number = NUMBERS[at].linux_number;
    error->tag = LAYERBOX_DRIVER_TYPES_ERROR_IO;
    memset(&error->val.io, 0, sizeof error->val.io);
    driver_string_dup(&error->val.io.operation, operation);
    error->val.io.code = number;
    return false;
}

static bool is_id(const uint8_t *text, size_t length) {
    static const char REMOVING[] = "-removing";
    const size_t end = sizeof REMOVING - 1;
    if (length < 1 || length > MAX_ID) return false;
    for (size_t at = 0; at < length; at++) {
        uint8_t byte = text[at];
        bool alphanumeric = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
        if (!alphanumeric && (at == 0 || (byte != '_' && byte != '.' && byte != '-'))) return false;
    }
    return length < end || memcmp(text + length - end, REMOVING, end) != 0;
}

static bool check_id(const driver_string_t *id, error_t *error) {
    if (is_id(id->ptr, id->len)) return true;
    return fail(error, LAYERBOX_DRIVER_TYPES_ERROR_INVALID_ID, copy(id->ptr, id->len));
}

static void path_of(const driver_string_t *id, char path[static sizeof "/layers/" + MAX_ID]) {
    memcpy(path, "/layers/", 8);
    memcpy(path + 8, id->ptr, id->len);
    path[8 + id->len] = 0;
}

// Whether there is a record of that name, which must then be a regular file.
static bool find(const driver_string_t *id, bool *found, error_t *error) {
    char path[sizeof "/layers/" + MAX_ID];
    struct stat status;
    path_of(id, path);
    *found = lstat(path, &status) == 0;
    if (*found) return S_ISREG(status.st_mode) || corrupt(error, id, " is not a regular file");
    return errno == ENOENT || io(error, "stat");
}

// Makes ids of the lines of a record.
static bool parse(const driver_string_t *id, const uint8_t *text, size_t length, ids_t *ancestors, error_t *error) {
    size_t count = 0;
    for (size_t at = 0; at < length; at++) count += text[at] == '\n';
    if (length && text[length - 1] != '\n') return corrupt(error, id, " is cut off in a line");
    if (count > MAX_ANCESTORS) return corrupt(error, id, " lists more than 4096 ancestors");
    ancestors->ptr = allocate(count * sizeof *ancestors->ptr);
    ancestors->len = 0;
    for (const uint8_t *line = text; line < text + length;) {
        const uint8_t *end = memchr(line, '\n', (size_t)(text + length - line));
        size_t size = (size_t)(end - line);
        if (!is_id(line, size)) return corrupt(error, id, " has a line that is not a layer id");
        if (size == id->len && !memcmp(line, id->ptr, size)) return corrupt(error, id, " lists the layer itself");
        for (size_t at = 0; at < ancestors->len; at++)
            if (ancestors->ptr[at].len == size && !memcmp(ancestors->ptr[at].ptr, line, size))
                return corrupt(error, id, " lists an ancestor twice");
        ancestors->ptr[ancestors->len++] = copy(line, size);
        line = end + 1;
    }
    return true;
}

static bool read_layer(const driver_string_t *id, layer_t *layer, error_t *error) {
    bool found;
    if (!find(id, &found, error)) return false;
    if (!found) return fail(error, LAYERBOX_DRIVER_TYPES_ERROR_NOT_FOUND, copy(id->ptr, id->len));
    char path[sizeof "/layers/" + MAX_ID];
    path_of(id, path);
    int file = open(path, O_RDONLY | O_NOFOLLOW);
    if (file < 0) return io(error, "open");
    uint8_t *text = allocate(MAX_RECORD + 1);
    size_t length = 0;
    ssize_t more = 0;
    while (length <= MAX_RECORD && (more = read(file, text + length, MAX_RECORD + 1 - length)) > 0) length += (size_t)more;
    bool is_read = more >= 0 || io(error, "read");
    close(file);
    if (is_read && length > MAX_RECORD) is_read = corrupt(error, id, " is larger than 1 MiB");
    layer->id = copy(id->ptr, id->len);
    bool is_layer = is_read && parse(id, text, length, &layer->ancestors, error);
    free(text);
    return is_layer;
}

static int by_bytes(const void *one, const void *other) {
    const driver_string_t *a = one, *b = other;
    int order = memcmp(a->ptr, b->ptr, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

bool exports_layerbox_driver_lifecycle_exists(driver_string_t *id, bool *found, error_t *error) {
    return check_id(id, error) && find(id, found, error);
}

bool exports_layerbox_driver_lifecycle_metadata(driver_string_t *id, layer_t *layer, error_t *error) {
    return check_id(id, error) && read_layer(id, layer, error);
}

bool exports_layerbox_driver_lifecycle_list(exports_layerbox_driver_lifecycle_list_layer_t *layers, error_t *error) {
    DIR *directory = opendir("/layers");
    if (!directory) return io(error, "openat");
    driver_string_t *ids = NULL;
    size_t count = 0, room = 0;
    struct dirent *entry;
    while ((errno = 0, entry = readdir(directory))) {
        const uint8_t *name = (const uint8_t *)entry->d_name;
        size_t length = strlen(entry->d_name);
        // What is not named as a layer is none: temporary files, and what Docker's driver left behind.
        if (!is_id(name, length)) continue;
        if (count == room) {
            room = room ? 2 * room : 64;
            ids = realloc(ids, room * sizeof *ids);
            if (!ids) abort();
        }
        ids[count++] = copy(name, length);
    }
    bool is_whole = errno == 0 || io(error, "readdir");
    closedir(directory);
    if (!is_whole) return false;
    if (count) qsort(ids, count, sizeof *ids, by_bytes);
    layers->ptr = allocate(count * sizeof *layers->ptr);
    layers->len = count;
    for (size_t at = 0; at < count; at++)
        if (!read_layer(&ids[at], &layers->ptr[at], error)) return false;
    // Nothing else is freed: the instance, and all its memory, goes away with the call.
    free(ids);
    return true;
}

static void number(driver_string_t *text, size_t value) {
    char digits[21];
    char *first = digits + sizeof digits;
    do *--first = (char)('0' + value % 10);
    while (value /= 10);
    *text = copy((uint8_t *)first, (size_t)(digits + sizeof digits - first));
}

bool exports_layerbox_driver_lifecycle_status(driver_list_tuple2_string_string_t *rows, error_t *error) {
    exports_layerbox_driver_lifecycle_list_layer_t layers;
    if (!exports_layerbox_driver_lifecycle_list(&layers, error)) return false;
    rows->ptr = allocate(sizeof *rows->ptr);
    rows->len = 1;
    driver_string_dup(&rows->ptr->f0, "Dirs");
    number(&rows->ptr->f1, layers.len);
    return true;
}

static bool unsupported(error_t *error, const char *call) {
    driver_string_t text;
    driver_string_dup(&text, call);
    return fail(error, LAYERBOX_DRIVER_TYPES_ERROR_UNSUPPORTED, text);
}

// The calls that this component leaves to others.
bool exports_layerbox_driver_lifecycle_create(driver_string_t *id, driver_string_t *parent, uint32_t depth, error_t *error) {
    return (void)id, (void)parent, (void)depth, unsupported(error, "create: this component only reads");
}

bool exports_layerbox_driver_lifecycle_remove(driver_string_t *id, bool force, error_t *error) {
    return (void)id, (void)force, unsupported(error, "remove: this component only reads");
}

bool exports_layerbox_driver_lifecycle_get(driver_string_t *id, driver_string_t *label,
                                           exports_layerbox_driver_lifecycle_place_t *place, error_t *error) {
    return (void)id, (void)label, (void)place, unsupported(error, "get: this component mounts nothing");
}

bool exports_layerbox_driver_lifecycle_put(driver_string_t *id, error_t *error) {
    return (void)id, unsupported(error, "put: this component mounts nothing");
}

bool exports_layerbox_driver_lifecycle_cleanup(uint32_t *count, error_t *error) {
    return (void)count, unsupported(error, "cleanup: this component mounts nothing");
}

bool exports_layerbox_driver_differ_diff(driver_string_t *id, driver_string_t *parent, exports_layerbox_driver_differ_id_maps_t *maps,
                                         exports_layerbox_driver_differ_outcome_t *outcome, error_t *error) {
    return (void)id, (void)parent, (void)maps, (void)outcome, unsupported(error, "diff: this component writes no archives");
}

bool exports_layerbox_driver_differ_apply_diff(driver_string_t *id, driver_string_t *parent,
                                               exports_layerbox_driver_differ_apply_options_t *options,
                                               exports_layerbox_driver_differ_totals_t *totals, error_t *error) {
    return (void)id, (void)parent, (void)options, (void)totals, unsupported(error, "apply-diff: this component reads no archives");
}

bool exports_layerbox_driver_differ_changes(driver_string_t *id, driver_string_t *parent,
                                            exports_layerbox_driver_differ_change_list_t *changes, error_t *error) {
    return (void)id, (void)parent, (void)changes, unsupported(error, "changes: this component compares nothing");
}

bool exports_layerbox_driver_differ_diff_size(driver_string_t *id, driver_string_t *parent,
                                              exports_layerbox_driver_differ_totals_t *totals, error_t *error) {
    return (void)id, (void)parent, (void)totals, unsupported(error, "diff-size: this component counts nothing");
}
